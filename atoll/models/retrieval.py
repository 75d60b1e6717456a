"""Retrieval metrics of pairs: each anchor looks for its positives among all of a set.

nDCG (Järvelin and Kekäläinen 2002) with gains of 0 and 1, recall and reciprocal rank. Where scores
are equal, each is the mean over the orders that they allow (McSherry and Najork 2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from atoll.models.contrast import vectors_of
from atoll.models.objective import Batch, Metric, column_sums

__all__ = ["retrieval"]

NAMES = ("ndcg@10", "recall@1", "recall@10", "mrr")
CUT = 10
BLOCK = 2**22
"""Cosines that are held at once."""
DIGITS = 1e-6
"""Cosines that differ by less are the same: float32 gives no more."""


def retrieval(*, both_ways: bool, learned: bool) -> Metric:
    """nDCG@10, recall at 1 and 10, and mean reciprocal rank; every row weighs the same.

    A positive that stands in several rows is one; all positives of equal anchors are relevant to
    each of them. What equals the anchor itself is left out of its search.
    both_ways: the mean over looking for positives and looking for anchors.
    learned: whether the outputs' last column is a scale.
    """

    def evidence(outputs: Tensor, batch: Batch) -> Tensor:
        unit = normalize(vectors_of(outputs, batch, learned=learned)[:, :2], dim=-1)
        return torch.cat([unit.flatten(1).double(), batch.target[:, :2].double()], dim=1)

    def settle(evidence: Tensor) -> Tensor:
        width = (evidence.shape[1] - 2) // 2
        sides = [
            (evidence[:, i * width : (i + 1) * width], evidence[:, 2 * width + i]) for i in (0, 1)
        ]
        found = _searched(sides[0], sides[1])
        return (found + _searched(sides[1], sides[0])) / 2 if both_ways else found

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        return {name: total / count for name, total in zip(NAMES, sums, strict=True)}

    return Metric(NAMES[0], True, evidence, finals, settle, column_sums, len(NAMES))


def _searched(asked: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor]) -> Tensor:
    """[n, 4]: how well each row of `asked` finds its partners; both are (vectors, keys)."""
    vectors, keys = asked
    kept, place = torch.unique(given[1], return_inverse=True)
    # The first row of each thing stands for it.
    numbers = torch.arange(len(place))
    first = torch.zeros(len(kept), dtype=torch.long).scatter_reduce(
        0, place, numbers, "amin", include_self=False
    )
    documents, wanted = given[0][first], _partners(keys, place)
    size = max(1, BLOCK // max(len(kept), 1))
    parts = []
    for start in range(0, len(vectors), size):
        rows = slice(start, start + size)
        cosines = (vectors[rows] @ documents.T / DIGITS).round()
        relevant = pad_sequence(wanted[rows], batch_first=True, padding_value=-1)
        real, relevant = relevant >= 0, relevant.clamp(min=0)
        found = torch.zeros_like(cosines).scatter_reduce(1, relevant, real.double(), "amax")
        itself = (keys[rows].unsqueeze(1) == kept.unsqueeze(0)) & (found == 0)
        cosines = cosines.masked_fill(itself, -torch.inf)
        parts.append(_scores(cosines, cosines.gather(1, relevant), real))
    return torch.cat(parts)


def _partners(keys: Tensor, place: Tensor) -> list[Tensor]:
    """For each row, the things that stand beside its key in any row."""
    groups, group = torch.unique(keys, return_inverse=True)
    pairs = torch.unique(torch.stack([group, place]), dim=1)
    counts = torch.bincount(pairs[0], minlength=len(groups))
    by_group = pairs[1].split(counts.tolist())
    return [by_group[number] for number in group.tolist()]


def _scores(cosines: Tensor, own: Tensor, real: Tensor) -> Tensor:
    """[n, 4] of cosines [n, D] and those of what is relevant [n, R]; the rest of R is padding."""
    above = torch.stack([(cosines > one.unsqueeze(1)).sum(1) for one in own.unbind(1)], dim=1)
    tied = torch.stack([(cosines == one.unsqueeze(1)).sum(1) for one in own.unbind(1)], dim=1)
    places = torch.arange(1, cosines.shape[1] + 1, dtype=torch.float64)
    gains = torch.where(places <= CUT, 1 / (places + 1).log2(), 0.0)

    def mean_over_ties(gain: Tensor) -> Tensor:
        total = torch.cat([gain.new_zeros(1), gain.cumsum(0)])
        return (total[above + tied] - total[above]) / tied * real

    count = real.sum(1)
    return torch.stack(
        [
            mean_over_ties(gains).sum(1) / gains.cumsum(0)[count - 1],
            mean_over_ties((places <= 1).double()).sum(1) / count,
            mean_over_ties((places <= CUT).double()).sum(1) / count,
            mean_over_ties(1 / places).amax(1),
        ],
        dim=1,
    )
