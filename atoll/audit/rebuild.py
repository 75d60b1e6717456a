"""Gradient inversion: the rows of a batch put in order again from the gradient of one step.

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

__all__ = [
    "Later",
    "at_their_places",
    "in_order",
    "reads_forward",
    "right_at_places",
    "right_in_order",
]

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


def at_their_places(scores: Tensor, vocabulary: Vocabulary, *, rows: int) -> list[list[int]]:
    """The tokens of the lowest residuals at each place, one for each row; scores [tokens, places].

    Which of them are of one row is not told.
    """
    best = scores.topk(min(rows, len(scores)), dim=0, largest=False).indices
    found: list[list[int]] = vocabulary.ids[best].T.tolist()
    return found


def in_order(
    bench: Bench,
    values: Tree,
    scores: Tensor,
    vocabulary: Vocabulary,
    lengths: Sequence[int],
    later: Later,
) -> list[list[int]]:
    """The texts whose every beginning lies deepest in the span of the later layers: as many of each
    length as `lengths` has.

    scores: [tokens], the residuals of single tokens; the best of them are tried at each place.
    """
    some = max(CANDIDATES, min(CANDIDATES * len(lengths), int((scores < EXACT).sum())))
    tried = torch.tensor([*vocabulary.ids[scores.argsort()[:some]].tolist(), *later.special])
    beams, costs = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1)
    texts: list[list[int]] = []
    for length in range(1, max(lengths) + 1):
        longer = torch.cat(
            [
                beams.repeat_interleave(len(tried), 0),
                tried.repeat(len(beams)).unsqueeze(1),
            ],
            dim=1,
        )
        read = read_texts(bench, values, later.sight, longer.tolist())
        last = distance(read[:, -1], later.spaces).cpu() + AGAIN * _repeats(read).cpu()
        ended = lengths.count(length)
        texts += _ended(longer.view(len(beams), len(tried), -1), costs, last, ended)
        found = costs.repeat_interleave(len(tried)) + last
        order = found.argsort()[: BEAM + len(lengths) - 1]
        beams, costs = longer[order], found[order]
    return texts


def _ended(longer: Tensor, costs: Tensor, last: Tensor, count: int) -> list[list[int]]:
    """The best texts [beams, tokens, places] as they end, each of another beginning: the last
    token predicts nothing, and tells little by its own."""
    each, which = last.view(longer.shape[:2]).min(1)
    best = (costs + AGAIN * each).argsort()[:count]
    found: list[list[int]] = longer[best, which[best]].tolist()
    return found


def _repeats(read: Tensor) -> Tensor:
    """[texts]: whether the last place was read as the one before it."""
    if read.shape[1] < 2:
        return torch.zeros(len(read))
    apart = (read[:, -1] - read[:, -2]).norm(dim=-1)
    same: Tensor = apart < EXACT * read[:, -1].norm(dim=-1)
    return same.float()


def right_in_order(
    texts: Sequence[Sequence[int]], rows: Sequence[Example], vocabulary: Vocabulary
) -> tuple[int, int]:
    """How many ordinary tokens of rows stand at their place in the text most like their row, and
    how many there are."""
    right, count = 0, 0
    for row in rows:
        places, own = _places(row, vocabulary), [t for t in texts if len(t) == len(row.ids)]
        right += max((sum(t[place] == row.ids[place] for place in places) for t in own), default=0)
        count += len(places)
    return right, count


def right_at_places(
    found: Sequence[Sequence[int]], rows: Sequence[Example], vocabulary: Vocabulary
) -> tuple[int, int]:
    """How many ordinary tokens of rows are among those found at their place, and how many there
    are."""
    told = [(place, row.ids[place]) for row in rows for place in _places(row, vocabulary)]
    return sum(token in found[place] for place, token in told), len(told)


def _places(row: Example, vocabulary: Vocabulary) -> list[int]:
    """Where it has tokens that are not special."""
    usual = set(vocabulary.ids.tolist())
    return [place for place, token in enumerate(row.ids.tolist()) if token in usual]
