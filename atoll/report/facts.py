"""What was trained, how, with what: pairs of a name and a value."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from atoll.accounting import stated, summed
from atoll.report.read import RunFiles
from atoll.report.words import grouped, number
from atoll.words import counted

__all__ = ["Pairs", "at", "privacy", "record", "rounds_done", "setup", "state"]

Pairs = list[tuple[str, str]]
SHOWN = 12
"""Items of a long list in run.json."""


def at(tree: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def setup(run: RunFiles) -> Pairs:
    """Task, model, method, algorithm, rounds, clients, rows."""
    config, card = run.config, at(run.record, "data")
    found = [
        ("task", at(config, "model.task") or (run.summary and run.summary.task)),
        ("model", at(config, "model.name_or_path")),
        ("data", at(config, "data.path")),
        ("partition", _call(at(config, "data.partition"))),
        ("method", _method(config)),
        ("head", at(config, "adapter.head")),
        ("trained parameters", run.summary and run.summary.trainable_parameters),
        ("algorithm", _call(at(config, "federation.algorithm"))),
        ("stages", _stages(at(config, "federation.stages"))),
        ("stages down", _stages(at(config, "federation.broadcast_stages"))),
        ("server", _call(at(config, "federation.server"))),
        ("rounds", _rounds(run)),
        ("clients", at(card, "num_clients") or len((run.summary and run.summary.per_client) or ())),
        ("clients in a round", _cohort(config)),
        ("training rows", at(card, "train")),
        ("common test rows", at(card, "test")),
        ("held-out rows of clients", at(card, "own_test")),
        ("learning rate", at(config, "train.learning_rate")),
        ("seed", _text(at(config, "seed"))),
    ]
    return [(name, _text(value)) for name, value in found if value]


def state(run: RunFiles) -> tuple[bool, str]:
    """Whether the run is finished, and how far it is."""
    if run.summary is not None:
        return True, "finished"
    done, planned = rounds_done(run), at(run.config, "federation.num_rounds")
    return False, f"not finished: round {done}" + (f" of {planned}" if planned is not None else "")


def rounds_done(run: RunFiles) -> int:
    """How many rounds are over."""
    if run.summary and run.summary.num_rounds is not None:
        return run.summary.num_rounds
    return run.rounds[-1].round if run.rounds else 0


def privacy(run: RunFiles) -> str:
    """What the run says about differential privacy and secure sums, in a sentence each."""
    said, sums = None, None
    if run.summary is not None:
        told = run.summary.model_dump()
        said, sums = stated(told), summed(told)
    else:
        spent = [row.epsilon for row in run.rounds if row.epsilon is not None]
        said = f"Differential privacy: ε = {number(spent[-1])} so far." if spent else None
    none = "Differential privacy: none; nothing bounds what the model remembers of single rows."
    return " ".join(filter(None, [said or none, sums]))


def record(run: RunFiles) -> Pairs:
    """run.json, flat; the clients' counts stand in a table of their own, releases in a ledger."""
    return [(name, text) for name, text in _flat(run.record, "") if text]


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{path}.{key}" if path else str(key)
            if name not in ("data.clients", "starts_from.releases"):
                yield from _flat(inner, name)
    elif path == "command" and isinstance(value, list):
        yield path, shlex.join(map(str, value))
    else:
        yield path, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return grouped(value)
    if isinstance(value, list):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return ", ".join(map(_text, value[:SHOWN])) + more
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _call(value: JsonValue) -> str | None:
    """`fedprox (mu 0.1)`."""
    if not isinstance(value, Mapping):
        return value if isinstance(value, str) else None
    given = ", ".join(f"{key} {_text(item)}" for key, item in value.items() if key != "name")
    return f"{value.get('name')} ({given})" if given else str(value.get("name"))


def _stages(value: JsonValue) -> str | None:
    calls = [_call(item) for item in value] if isinstance(value, list) else []
    return ", ".join(filter(None, calls))


def _method(config: JsonValue) -> str | None:
    method = at(config, "adapter.method")
    if method != "lora":
        return method if isinstance(method, str) else None
    rank, alpha = (_text(at(config, f"adapter.{key}")) for key in ("r", "lora_alpha"))
    return f"lora (rank {rank}, alpha {alpha})"


def _rounds(run: RunFiles) -> str | None:
    done, planned = rounds_done(run), at(run.config, "federation.num_rounds")
    best = run.summary.best_round if run.summary else None
    text = str(done) if planned in (None, done) else f"{done} of {planned}"
    return text if best is None else f"{text}; the best was round {best}"


def _cohort(config: JsonValue) -> str | None:
    asked = at(config, "federation.clients_per_round")
    if asked is not None:
        return counted(asked, "client") if isinstance(asked, int) else None
    share = at(config, "federation.fraction_train")
    return "all" if share is None else f"{share:.0%} of the clients" if _number(share) else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float)
