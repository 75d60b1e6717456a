"""Gradient inversion: a row of text put in order again from the gradient of one step.

Where layers read a token otherwise at another place, each place is looked up by itself. Where they
do not, the next layers of a causal model tell how a text goes on: Petrov et al., DAGER (NeurIPS
2024, arXiv 2405.15586), with a beam in the place of its search. What is found is a lower bound: an
attacker has more time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.audit.sight import Sight, Space, distance
from atoll.audit.span import EXACT
from atoll.audit.tokens import Vocabulary, read_texts
from atoll.local.bench import Bench
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = ["Later", "at_their_places", "in_order", "reads_forward", "right_places"]

BEAM, CANDIDATES = 6, 32
AGAIN = 0.01
"""What it costs a text to add nothing to what layers have read: more than rounding, less than a
token that is wrong. A first token that is repeated looks as if it stood there once."""


@dataclass(frozen=True)
class Later:
    """Layers that read what blocks below made of a text so far, and what an update tells there.

    special: tokens that every attacker tries, because templates put them into texts.
    """

    sight: Sight
    spaces: Sequence[Space]
    special: Sequence[int]


def reads_forward(bench: Bench, values: Tree, sight: Sight, vocabulary: Vocabulary) -> bool:
    """Whether what layers read at a place depends on the tokens before it, and on none after."""
    a, b, c = vocabulary.ids[:: max(len(vocabulary.ids) // 3, 1)][:3].tolist()
    one, other = (read_texts(bench, values, sight, [text])[0] for text in ([a, b, c], [a, b, a]))
    before = read_texts(bench, values, sight, [[c, b, c]])[0]
    same = torch.allclose(one[1], other[1], rtol=1e-4, atol=1e-5)
    return same and not torch.allclose(one[1], before[1], rtol=1e-4, atol=1e-5)


def at_their_places(scores: Tensor, vocabulary: Vocabulary) -> list[int]:
    """The token of the lowest residual at each place; scores [tokens, places]."""
    return [int(token) for token in vocabulary.ids[scores.argmin(0)]]


def in_order(
    bench: Bench, values: Tree, scores: Tensor, vocabulary: Vocabulary, length: int, later: Later
) -> list[int]:
    """The text whose every beginning lies deepest in the span of the later layers.

    scores: [tokens], the residuals of single tokens; the best of them are tried at each place.
    """
    few = vocabulary.ids[scores.argsort()[:CANDIDATES]].tolist()
    tried = torch.tensor([*few, *later.special])
    beams, costs = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1)
    for _ in range(length):
        longer = torch.cat(
            [
                beams.repeat_interleave(len(tried), 0),
                tried.repeat(len(beams)).unsqueeze(1),
            ],
            dim=1,
        )
        read = read_texts(bench, values, later.sight, longer.tolist())
        found = costs.repeat_interleave(len(tried)) + distance(read[:, -1], later.spaces).cpu()
        found += AGAIN * _repeats(read).cpu()
        order = found.argsort()[:BEAM]
        beams, costs = longer[order], found[order]
    return [int(token) for token in beams[0]]


def _repeats(read: Tensor) -> Tensor:
    """[texts]: whether the last place was read as the one before it."""
    if read.shape[1] < 2:
        return torch.zeros(len(read))
    apart = (read[:, -1] - read[:, -2]).norm(dim=-1)
    same: Tensor = apart < EXACT * read[:, -1].norm(dim=-1)
    return same.float()


def right_places(found: Sequence[int], example: Example, vocabulary: Vocabulary) -> tuple[int, int]:
    """How many of a row's ordinary tokens were found at their place, and how many there are."""
    usual = set(vocabulary.ids.tolist())
    places = [place for place, token in enumerate(example.ids.tolist()) if token in usual]
    return sum(found[place] == example.ids[place] for place in places), len(places)
