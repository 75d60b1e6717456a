"""A server's eye: the model as it knows it, and the layers at which it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.audit.sight import Sight, embedding_of, sights_of
from atoll.audit.tokens import Vocabulary, vocabulary_of
from atoll.config.tasks import TASKS
from atoll.experiment.setup import Setup
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = ["Eye", "eye_of"]

PLACES = 32
"""Tokens of a row that are looked for, where each is looked for at every place."""


@dataclass(frozen=True)
class Eye:
    """The model as the server knows it, and the layers at which it looks, the lowest first.

    vocabulary: None where tokens cannot be looked for.   others: rows that nobody trained on.
    """

    setup: Setup
    values: Tree
    sights: Sequence[Sight]
    vocabulary: Vocabulary | None
    others: Sequence[Example]

    def cut(self, example: Example) -> Example:
        """The beginning of a row, where tokens are looked for at every place."""
        long = self.vocabulary is not None and self.vocabulary.by_position
        return example.cut(PLACES) if long else example


def eye_of(
    setup: Setup, values: Tree, others: Sequence[Example], *, probe: Sequence[Example]
) -> Eye | None:
    """Where a server would look in a run's uploads; None where no linear layer trains.

    probe: a few rows with which the model is run once.
    """
    bench = setup.bench
    parts = ("adapter", "head") if bench.train_head else ("adapter",)
    trained = [name for part in parts for name in setup.start.server.get(part, {})]
    sights = sights_of(bench, values, bench.objective.collate(probe), trained=trained)
    if not sights:
        return None
    base = setup.base
    texts = TASKS[setup.experiment.model.task].texts and base.tokenizer is not None
    # Of two towers the first layers may be those of images.
    texts = texts and embedding_of(base.backbone) is not None
    vocabulary = vocabulary_of(bench, values, sights[0], base.tokenizer) if texts else None
    return Eye(setup, values, sights, vocabulary, others)
