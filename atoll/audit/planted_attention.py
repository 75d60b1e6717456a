"""The other active attack of Vu et al.: two attention heads that differ for one token alone.

Vu, Nguyen, Jeter, Thai, Analysis of Privacy Leakage in Federated Large Language Models (AISTATS
2024, arXiv 2403.04784), the attack on self-attention. A head whose queries and keys are one
projection, made steep, retrieves for each token that token (a Hopfield network's memory: Ramsauer
et al. 2021, arXiv 2008.02217). One head's projection leaves nothing of the target's vector v, and
so averages all tokens where v stands; another's keeps v. What both say along v differs where v is,
and nowhere else; it goes to one feature, by which the next layer's trap fires.

Implemented to test what refuses it (`atoll.policy.guard`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.audit.planted import FEATURE, Planted, set_trap
from atoll.audit.sight import Sight, row_vectors
from atoll.local.bench import Bench
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = ["Attention", "plant_heads"]

STEEP = 30.0
"""Of queries times keys: so much that a softmax over them picks one token."""
LOUD = 3.0
"""What the heads differ by, over the features of a token, which are about 1."""


@dataclass(frozen=True)
class Attention:
    """Names of modules: a block's projections to queries, keys and values, whose rows its `heads`
    share, its output, and the first feed-forward layer behind it, which holds the trap.
    """

    query: str
    key: str
    value: str
    output: str
    trap: str
    heads: int


def plant_heads(
    bench: Bench, values: Tree, ways: Attention, target: Example, others: Sequence[Example]
) -> Planted:
    """Values under which the trap's neuron fires for texts that hold a token of the target's.

    others: rows of the server's own, which do not hold it.
    """
    planted = {name: value.clone() for name, value in values.items()}
    seen, known = (_read(bench, values, ways.query, rows) for rows in ([target], others))
    # The one of its tokens, where it stands, that is like no other.
    place = int(torch.cdist(seen, known).amin(1).argmax())
    v = seen[place] / seen[place].norm()
    blind, seeing = _projections(v, known, len(v) // ways.heads)
    width = len(blind)
    two = slice(2 * width)
    for name in (ways.query, ways.key):
        planted[f"{name}.weight"][two] = STEEP**0.5 * torch.cat([blind, seeing])
        planted[f"{name}.bias"][two] = 0.0
    planted[f"{ways.value}.weight"][two] = 0.0
    planted[f"{ways.value}.bias"][two] = 0.0
    planted[f"{ways.value}.weight"][[0, width]] = v
    out = planted[f"{ways.output}.weight"]
    out[:, two], out[FEATURE] = 0.0, 0.0
    out[FEATURE, 0], out[FEATURE, width] = -LOUD, LOUD
    planted[f"{ways.output}.bias"][FEATURE] = 0.0
    near = float(_read(bench, planted, ways.trap, [target])[place, FEATURE])
    far = float(_read(bench, planted, ways.trap, others)[:, FEATURE].max())
    return Planted(planted, set_trap(planted, ways.trap, near, far))


def _projections(v: Tensor, known: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Twice [width, d]: what tells tokens apart best, of which one leaves nothing of v, and the
    other keeps it."""
    apart = known - torch.outer(known @ v, v)
    _, sizes, rows = torch.linalg.svd(apart, full_matrices=False)
    blind = rows[:width] * (sizes[0] / sizes[:width, None])
    return blind, torch.cat([v[None], blind[: width - 1]])


def _read(bench: Bench, values: Tree, module: str, rows: Sequence[Example]) -> Tensor:
    """[n, d]: what a module reads of all tokens of these rows, padding left out."""
    return row_vectors(bench, values, bench.objective.collate(rows), Sight((module,), frozenset()))
