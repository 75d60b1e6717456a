"""Secrets that are planted at clients, and how much of them a model gives away after training."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atoll.audit.exposure import Exposure, exposures
from atoll.audit.membership import losses_of
from atoll.config.tasks import TaskName
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = ["COPIES", "TASKS", "Exposed", "Secrets", "exposed", "planted", "secrets_of"]

TASKS: tuple[TaskName, ...] = ("causal-lm", "masked-lm", "classification")
"""Those with a form for secrets."""
COPIES = (0, 1, 4)
"""How often a secret stands among its client's rows; 0: nowhere, to compare with."""
WORDS, DIGITS = 8, 9
Row = dict[str, object]


@dataclass(frozen=True)
class Secrets:
    """Rows of one form, drawn at random: those to plant, for each client by copies, and others."""

    planted: Mapping[str, Mapping[int, Example]]
    others: Sequence[Example]


@dataclass(frozen=True)
class Exposed:
    """Exposure in bits of secrets that stood so often among their client's rows: the median.

    bits: by rank, at most log2 of the number of secrets compared; fitted: by the distribution.
    """

    copies: int
    bits: float
    fitted: float
    secrets: int


def secrets_of(
    setup: Setup, clients: Sequence[str], *, others: int, draw: np.random.Generator
) -> Secrets | None:
    """Secrets for clients, each unlike all others; None for tasks that have no form for them.

    Texts of random digits, for models that write, or of random words, where a tokenizer knows no
    digits; with a random label, where rows have one.
    """
    wanted = len(clients) * len(COPIES) + others
    for make in _forms(setup, draw):
        found = _different(setup, make, wanted)
        if len(found) == wanted:
            examples = iter(found)
            own = {client: {copies: next(examples) for copies in COPIES} for client in clients}
            return Secrets(own, list(examples))
    return None


def _different(setup: Setup, make: Callable[[], Row], wanted: int) -> list[Example]:
    """So many rows of one form, each of other tokens; fewer where it has no more."""
    found: dict[bytes, Example] = {}
    for _ in range(4):
        rows = [make() for _ in range(wanted - len(found))]
        found |= {example.ids.tobytes(): example for example in setup.bench.objective.encode(rows)}
        if len(found) == wanted:
            break
    return list(found.values())


def _forms(setup: Setup, draw: np.random.Generator) -> list[Callable[[], Row]]:
    task: TaskName = setup.experiment.model.task
    if task not in TASKS:
        return []
    tokenizer, labels = setup.base.tokenizer, list(setup.data.labels or ())
    special = set(tokenizer.all_special_ids)
    usual = [token for token in range(len(tokenizer)) if token not in special]

    def words() -> Row:
        return {"text": tokenizer.decode(draw.choice(usual, size=WORDS).tolist())}

    def labelled() -> Row:
        return {**words(), "label": labels[draw.integers(len(labels))]}

    def digits() -> Row:
        return {"text": "pin " + "".join(map(str, draw.integers(10, size=DIGITS)))}

    return [labelled] if task == "classification" else [digits, words]


def planted(rows: Mapping[str, Sequence[Example]], secrets: Secrets) -> dict[str, list[Example]]:
    """The clients' rows with their secrets among them."""
    return {
        client: [
            *own,
            *(one for copies, one in secrets.planted[client].items() for _ in range(copies)),
        ]
        for client, own in rows.items()
    }


def exposed(
    bench: Bench, after: Tree, secrets: Secrets, before: Tree | None = None
) -> list[Exposed]:
    """How much each kind of secret is exposed by a model, one for each of `COPIES`.

    before: values from which training started. Then a secret's loss is what training made of it:
    of a row with a label, most of the loss is how well the label happens to fit the words.
    """
    kinds = [[own[copies] for own in secrets.planted.values()] for copies in COPIES]
    all_of_them = [*secrets.others, *(one for kind in kinds for one in kind)]
    losses = losses_of(bench, after, all_of_them)
    if before is not None:
        losses -= losses_of(bench, before, all_of_them)
    others, rest = np.split(losses, [len(secrets.others)])
    each = exposures(rest.tolist(), others.tolist())
    size = len(secrets.planted)
    return [_median(copies, each[size * n : size * (n + 1)]) for n, copies in enumerate(COPIES)]


def _median(copies: int, found: Sequence[Exposure]) -> Exposed:
    bits = statistics.median(one.bits for one in found)
    return Exposed(copies, bits, statistics.median(one.fitted for one in found), len(found))
