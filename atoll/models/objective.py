"""What a task asks of a model: rows to examples to batches, outputs to losses and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoll.tree import Tree

__all__ = ["Batch", "Example", "Kin", "Metric", "Objective", "column_sums", "no_terms", "unsettled"]


@dataclass(frozen=True)
class Example:
    """One encoded row: token ids, what is to be predicted, and positions where rows are packed.

    target: [1] for a label; [T] for tokens, with −100 where nothing is to be predicted; [1, C] for
        numbers.
    rows: how many rows it holds; more than one where they are packed.
    pixels: an image [C, H, W], beside or instead of token ids.
    pair: the other half of a row of two (a positive, a rejected answer).
    known: what the base model says of it, where a task compares with that.
    over: lengths in tokens of the rows in it that were cut.
    kin: rows that run with it where something is kept of rows.
    """

    ids: np.ndarray
    target: np.ndarray
    positions: np.ndarray | None = None
    rows: int = 1
    pixels: np.ndarray | None = None
    pair: Example | None = None
    known: np.ndarray | None = None
    over: tuple[int, ...] = ()
    kin: Kin | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Its length in a batch: rows of one batch are padded to the longest."""
        return max(len(self.ids), 0 if self.pair is None else len(self.pair))

    def cut(self, length: int) -> Example:
        """The first tokens of it."""
        if len(self) <= length:
            return self
        token_targets = len(self.target) == len(self.ids)
        return replace(
            self,
            ids=self.ids[:length],
            target=self.target[:length] if token_targets else self.target,
            positions=None if self.positions is None else self.positions[:length],
            pair=None if self.pair is None else self.pair.cut(length),
            over=self.over or (len(self),),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        own = (self.ids, self.target, self.positions, self.pixels, self.known)
        size = sum(array.nbytes for array in own if array is not None)
        return size + (0 if self.pair is None else self.pair.nbytes)


@dataclass(frozen=True, eq=False)
class Kin:
    """A few rows of one client and about one length, and a mark of one of them.

    The mark tells the row from all others, also from the same one among other rows: the last bits
    of what a model makes of a row depend on the rows beside it.
    """

    rows: list[Example]
    mark: bytes


@dataclass(frozen=True)
class Batch:
    """Model inputs and targets, padded on the right; target −100 (NaN of numbers) is not counted.

    length: tokens that rows are padded to; None where nothing is padded.
    views: rows that the model's modules see for each row of the batch (two for a pair).
    clients: how many clients' rows stand one after another, the same number of each.
    known: what examples know of themselves, [N, …].
    """

    inputs: Mapping[str, Tensor]
    target: Tensor
    length: int | None = None
    views: int = 1
    clients: int = 1
    known: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {name: value.to(device) for name, value in self.inputs.items()}
        known = None if self.known is None else self.known.to(device)
        return replace(self, inputs=moved, target=self.target.to(device), known=known)


@dataclass(frozen=True)
class Metric:
    """How good outputs are: evidence of each row, scores of a set of rows, sums, numbers.

    evidence: (outputs, batch) -> [N, E], what is kept of each row.
    settle: [n, E] of a whole set -> its rows' scores [n, S] (a search ranks rows of the set).
    total: scores [n, S] -> sums [M]; those of two sets add up to those of both.
    finals: (sums [M], count) -> numbers by name, with `name` first.
    width: M.
    """

    name: str
    higher_is_better: bool
    evidence: Callable[[Tensor, Batch], Tensor]
    finals: Callable[[Sequence[float], float], Mapping[str, float]]
    settle: Callable[[Tensor], Tensor]
    total: Callable[[Tensor], Tensor]
    width: int


@dataclass(frozen=True)
class Objective:
    """A task's functions.

    encode: rows -> examples, without rows that hold no prediction.
    count: example -> how many predictions it holds.
    collate: examples (None: a padding row) -> Batch of N rows.
    terms: a client's examples -> loss terms of that client (class weights, …), stacked later.
    losses: (outputs, batch, terms [N, …]) -> the sum of losses of each row [N].
    redraw: makes an example anew for one step of training (masked tokens); None: as it is.
    drops_rows: whether `encode` leaves rows out.
    across: whether the loss of a row reads the other rows of its client's batch.
    real: targets are numbers [N, C], and a linear regression r of them gives the outputs
        scale·(r − middle): (scale, middle). None: targets are of another kind.
    """

    metric: Metric
    encode: Callable[[Sequence[Mapping[str, Any]]], list[Example]]
    count: Callable[[Example], int]
    collate: Callable[[Sequence[Example | None]], Batch]
    terms: Callable[[Sequence[Example]], Tree]
    losses: Callable[[Tensor, Batch, Tree], Tensor]
    redraw: Callable[[Example, np.random.Generator], Example] | None = None
    drops_rows: bool = False
    across: bool = False
    real: tuple[float, float] | None = None


def unsettled(evidence: Tensor) -> Tensor:
    """Evidence that is a row's scores already."""
    return evidence


def column_sums(scores: Tensor) -> Tensor:
    """Scores that add up as they are."""
    return scores.double().sum(0)


def no_terms(examples: Sequence[Example]) -> Tree:
    """A loss that knows nothing of its client."""
    return {}
