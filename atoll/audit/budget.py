"""How much an audit does, so that it ends in a minute on two cores where the model is small.

From the size of the model alone: two audits of one run do the same, whatever the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.audit.sight import embedding_of
from atoll.experiment.setup import Setup

__all__ = ["Budget", "budget_of"]

TRAINING, SCORING = 5e11, 3e11
"""Floating-point operations of one training, and of one look at many rows."""
CLIENTS, ROUNDS = 4, 4


@dataclass(frozen=True)
class Budget:
    """Clients and rounds of what is tried, and rows: of each client, of a batch, of secrets, of
    members."""

    clients: int
    rounds: int
    rows: int
    batch: int
    secrets: int
    members: int


def budget_of(setup: Setup, *, tokens: float) -> Budget:
    """What fits; tokens: of a row on average, with what an image has counted as such."""
    model = setup.base.backbone
    every = {id(value): value.numel() for value in model.parameters()}
    embedding = None if setup.base.tokenizer is None else embedding_of(model)
    for value in () if embedding is None else embedding.parameters():
        every.pop(id(value), None)
    row = 2 * max(sum(every.values()), 1) * max(tokens, 1.0)
    clients = min(CLIENTS, len(setup.data.clients))
    # Forward once, and back twice as far.
    rows = TRAINING / (3 * row * clients * ROUNDS)
    scored = SCORING / row
    return Budget(
        clients=clients,
        rounds=ROUNDS,
        rows=_between(rows, 4, 24),
        batch=min(_between(scored / 100, 2, 4), setup.experiment.train.per_device_train_batch_size),
        secrets=_between(scored, 256, 1024),
        members=_between(scored, 100, 1000),
    )


def _between(value: float, low: int, high: int) -> int:
    return max(low, min(int(value), high))
