"""The card of an exported model: from a run's own records, never from rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from atoll.accounting import stated
from atoll.models.locate import Source, find_file
from atoll.trained.card_rows import hides_clients, rows_told, table
from atoll.words import counted

__all__ = ["Told", "card", "licence_of"]

Facts = Mapping[str, Any]

_PIPELINES = {
    "classification": "text-classification",
    "multi-label-classification": "text-classification",
    "regression": "text-classification",
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "image-classification": "image-classification",
    "token-classification": "token-classification",
    "embedding": "sentence-similarity",
    "preference": "text-generation",
}
_ARMS = {"federated": "federated", "local": "local only", "pooled": "pooled"}


@dataclass(frozen=True)
class Told:
    """What a card is made from.

    experiment, record, summary: experiment.yaml, run.json and summary.json.
    library: what loads it.   merged: whether the base model's weights are in it.
    lines: plain Python that loads it.   checked: a sentence on how it was verified.
    """

    experiment: Facts
    record: Facts
    summary: Facts
    source: Source
    library: str
    merged: bool
    lines: str
    checked: str = ""


def card(told: Told) -> str:
    """README.md: front matter for the hub, then what was trained, on what, how well, and its use.

    It names clients and counts their rows, as the run directory does, but where clients are hidden;
    no row and no label.
    """
    base = told.source.hub_id
    title = f"{base}, fine-tuned" if told.merged else f"Adapter for {base}"
    clients = counted(told.record["data"]["num_clients"], "client")
    many = told.record["data"]["train"]
    rows = counted(many, "training row") if many else "training rows"  # sites may keep it
    parts = [
        _front(told),
        f"# {title}",
        f"Trained with Atoll across {clients} whose {rows} stayed where they were.",
        table(_training(told)),
        "## Results",
        _results(told.summary, told.record["data"]),
        "## Data",
        rows_told(told.record["data"], hidden=hides_clients(told.experiment)),
        "## Privacy",
        _privacy(told),
        "## Use",
        f"```python\n{told.lines}\n```",
        told.checked,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence_of(source: Source) -> str | None:
    """The licence that the base model's own card states; None where it states none."""
    try:
        path = find_file(source, "README.md")
        text = "" if path is None else path.read_text(encoding="utf-8")
        front = re.match(r"---\s*\n(.*?)\n---\s*\n", text, flags=re.DOTALL)
        found = yaml.safe_load(front[1]) if front else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    licence = found.get("license") if isinstance(found, dict) else None
    return licence if isinstance(licence, str) else None


def _front(told: Told) -> str:
    matter: dict[str, Any] = {"base_model": told.source.hub_id}
    matter["base_model_relation"] = "finetune" if told.merged else "adapter"
    matter["library_name"] = told.library
    licence = licence_of(told.source)
    if licence is not None:
        matter["license"] = licence
    pipeline = _PIPELINES.get(told.summary["task"])
    if pipeline is not None:
        matter["pipeline_tag"] = pipeline
    matter["tags"] = ["federated", "atoll"]
    return f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True).strip()}\n---"


def _training(told: Told) -> list[tuple[str, str]]:
    summary, experiment = told.summary, told.experiment
    federation, source = experiment["federation"], told.source
    revision = "" if source.revision is None else f", revision {source.revision}"
    seconds = summary["seconds"]
    return [
        ("base model", f"{source.hub_id}{revision}"),
        ("licence of the base model", licence_of(source) or "not stated beside it"),
        ("task", summary["task"]),
        ("method", _called(experiment["adapter"], "method", ("r", "lora_alpha", "use_rslora"))),
        ("trained values", f"{summary['trainable_parameters']:,}"),
        ("algorithm", _call(federation["algorithm"])),
        ("rounds", str(summary["num_rounds"])),
        ("statistics exchanges", str(summary["exchanges"])),
        ("bytes up, down", f"{summary['bytes_up']:,}, {summary['bytes_down']:,}"),
        ("seconds", "not measured" if seconds is None else f"{seconds:,.0f}"),
        ("Atoll", str(told.record["versions"].get("atoll", "unknown"))),
    ]


def _call(called: Any) -> str:
    """`fedprox (mu: 0.1)`."""
    if not isinstance(called, dict):
        return str(called)
    return _called(called, "name", [key for key in called if key != "name"])


def _called(section: Facts, name: str, keys: Sequence[str]) -> str:
    given = ", ".join(f"{key}: {section[key]}" for key in keys if section.get(key) is not None)
    shown = name == "name" or section[name] in ("lora", "dora")
    return f"{section[name]} ({given})" if given and shown else str(section[name])


def _results(summary: Facts, data: Facts) -> str:
    metric, own = summary["metric"], summary["own"]
    finals = {"federated": summary["final"], **summary["baselines"]}
    where = "all held-out rows" if data["test"] is None else "common test set"
    header = (metric, where, "own rows: mean", "worst client", "spread over clients")
    rows: list[tuple[str, ...]] = []
    for name, title in _ARMS.items():
        found = own.get(name) or {}
        numbers = [finals.get(name), *(found.get(key) for key in ("mean", "worst", "spread"))]
        rows.append((title, *(_number(number) for number in numbers)))
    return table(rows, header=header)


def _privacy(told: Told) -> str:
    said = stated(told.summary)
    if said is None:
        return (
            "No differential privacy: rows stayed with their owners, but updates were not noised, "
            "and a model can repeat what it was trained on."
        )
    if told.summary["final"] is None:
        return said
    return f"{said} That is of the model: the scores above are of held-out rows, without noise."


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
