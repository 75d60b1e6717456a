"""The span check: which vectors could have been inputs of a layer whose gradient is known.

Of y = W·x over rows x the gradient is δᵀX: its rows are sums of the inputs, so that each lies in
their span, and fill it where there are as many rows as inputs. The same holds of A in B·A·x, and of
B and the vectors A·x.

Petrov, Dimitrov, Baader, Müller, Vechev, DAGER: Exact Gradient Inversion for Large Language Models
(NeurIPS 2024, arXiv 2405.15586), section 4. The residual as a test of membership is ProjRes's
(arXiv 2604.21197).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.audit.ranking import auc

__all__ = ["EXACT", "Recovered", "basis_of", "recovered", "residuals"]

EXACT = 1e-3
"""A residual below which a vector is said to lie in the span."""
_RELATIVE = 1e-5
"""Singular values below this share of the largest are rounding."""
_CLOSE = 0.05


def basis_of(rows: Tensor) -> Tensor | None:
    """[m, d] -> [d, k] orthonormal, k < d: the span of the rows; None where all are zero.

    Of rows that span everything, the part that stands out.
    """
    rows = rows.double()
    _, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    if not len(sizes) or float(sizes[0]) == 0:
        return None
    kept = int((sizes > _RELATIVE * sizes[0]).sum())
    if kept == rows.shape[1]:
        if kept < 2:
            return None
        # Noise is everywhere: what stands out of it ends at the widest gap.
        kept = 1 + int((sizes[: kept // 2] / sizes[1 : kept // 2 + 1]).argmax())
    basis: Tensor = right[:kept].T.contiguous()
    return basis


def residuals(vectors: Tensor, basis: Tensor) -> Tensor:
    """[…, d] -> […]: the share of each vector's length that lies outside of the span, 0 to 1."""
    basis = basis.to(vectors.dtype)
    sizes = vectors.square().sum(-1).clamp(min=torch.finfo(vectors.dtype).tiny)
    inside = vectors @ basis
    rest = (1 - inside.square().sum(-1) / sizes).clamp(min=0).sqrt()
    # The difference of two equal numbers has no digits left.
    close = rest < _CLOSE
    if bool(close.any()):
        apart = (vectors[close] - inside[close] @ basis.T).norm(dim=-1)
        rest[close] = apart / sizes[close].sqrt()
    return rest


@dataclass(frozen=True)
class Recovered:
    """How well scores (low: there) find k true ones among n.

    recall: the share of the true ones among the k lowest.   chance: what guessing would find.
    exact: how many scores below `EXACT` are true ones; wrong: how many are not.
    """

    recall: float
    chance: float
    auc: float
    exact: int
    wrong: int
    true: int


def recovered(scores: Tensor, true: Sequence[int]) -> Recovered:
    """Hold the scores of n candidates against the places of the true ones."""
    there = torch.zeros(len(scores), dtype=torch.bool)
    there[list(true)] = True
    count = int(there.sum())
    # A tie at the end counts as guessing among those that are tied.
    ordered = scores.sort().values
    last = ordered[count - 1]
    sure = scores < last
    tied = scores == last
    left = count - int(sure.sum())
    hits = float((sure & there).sum()) + left * float((tied & there).sum()) / float(tied.sum())
    found = scores < EXACT
    return Recovered(
        recall=hits / count,
        chance=count / len(scores),
        auc=auc((-scores[there]).double().numpy(), (-scores[~there]).double().numpy()),
        exact=int((found & there).sum()),
        wrong=int((found & ~there).sum()),
        true=count,
    )
