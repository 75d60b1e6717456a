"""Retrieval metrics against scikit-learn, and against every order that ties allow."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torch import Tensor

from atoll.models import retrieval as module
from atoll.models.objective import Batch, Metric
from atoll.models.retrieval import retrieval


def scores_of(vectors: Tensor, keys: list[list[int]], *, both_ways: bool = False) -> Tensor:
    """The settled scores of a set whose outputs are these [n, 2, d]."""
    metric = retrieval(both_ways=both_ways, learned=False)
    batch = Batch({}, torch.tensor(keys))
    return metric.settle(metric.evidence(vectors.flatten(0, 1), batch))


def draw(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 2, 7, generator=torch.Generator().manual_seed(seed))


def test_ndcg_is_that_of_scikit_learn() -> None:
    vectors, n = draw(40), 40
    keys = [[i, 100 + i] for i in range(n)]
    unit = torch.nn.functional.normalize(vectors, dim=-1).double()
    cosines = (unit[:, 0] @ unit[:, 1].T).numpy()
    found = scores_of(vectors, keys)
    for row in range(n):
        expected = ndcg_score(np.eye(n)[row : row + 1], cosines[row : row + 1], k=10)
        assert float(found[row, 0]) == pytest.approx(expected)
        rank = int((cosines[row] > cosines[row, row]).sum()) + 1
        assert found[row, 1:].tolist() == pytest.approx(
            [float(rank == 1), float(rank <= 10), 1 / rank]
        )
    both = scores_of(vectors, keys, both_ways=True)
    back = scores_of(vectors.flip(1), [[b, a] for a, b in keys])
    torch.testing.assert_close(both, (found + back) / 2)


def test_several_relevant_ones_and_duplicates() -> None:
    vectors = draw(6)
    vectors[1, 0] = vectors[0, 0]
    vectors[3, 1] = vectors[2, 1]
    keys = [[1, 11], [1, 12], [3, 13], [4, 13], [5, 15], [6, 16]]
    unit = torch.nn.functional.normalize(vectors, dim=-1).double()
    documents = [0, 1, 2, 4, 5]  # one row for each thing: rows 2 and 3 have the same
    cosines = (unit[:, 0] @ unit[documents, 1].T).numpy()
    relevant = np.asarray([
        [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ])  # fmt: skip
    found = scores_of(vectors, keys)
    for row in range(6):
        expected = ndcg_score(relevant[row : row + 1], cosines[row : row + 1], k=10)
        assert float(found[row, 0]) == pytest.approx(expected)
        order = relevant[row][np.argsort(-cosines[row])]
        assert float(found[row, 1]) == pytest.approx(order[0] / relevant[row].sum())
        assert float(found[row, 2]) == pytest.approx(1.0)
        assert float(found[row, 3]) == pytest.approx(1 / (1 + int(order.argmax())))


def test_an_anchor_does_not_find_itself() -> None:
    """(a, b) and (b, a): each would come before its partner in its own search."""
    vectors = draw(4)
    vectors[1] = vectors[0].flip(0)
    keys = [[1, 2], [2, 1], [5, 6], [7, 8]]
    alone = scores_of(vectors[[0, 2, 3]], [[1, 2], [5, 6], [7, 8]])
    torch.testing.assert_close(scores_of(vectors, keys)[0], alone[0])


def test_a_positive_that_is_its_own_anchor_is_found() -> None:
    vectors = draw(3)
    vectors[0, 1] = vectors[0, 0]
    assert scores_of(vectors, [[1, 1], [2, 3], [4, 5]])[0].tolist() == [1, 1, 1, 1]


def averaged(cosines: list[int], relevant: list[bool]) -> list[float]:
    """The mean of each metric over all orders of the documents that the cosines allow."""
    places = range(len(cosines))
    orders = [
        order for order in itertools.permutations(places)
        if all(cosines[a] >= cosines[b] for a, b in itertools.pairwise(order))
    ]  # fmt: skip
    total, count = np.zeros(3), sum(relevant)
    ideal = sum(1 / math.log2(i + 2) for i in range(min(count, 10)))
    for order in orders:
        hits = [relevant[place] for place in order]
        gain = sum(1 / math.log2(i + 2) for i, hit in enumerate(hits[:10]) if hit)
        total += [gain / ideal, hits[0] / count, sum(hits[:10]) / count]
    return (total / len(orders)).tolist()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=6), st.data())
def test_ties_are_the_mean_over_their_orders(values: list[int], data: st.DataObject) -> None:
    n = len(values)
    marked = data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    cosines = torch.tensor([values], dtype=torch.float64)
    own = torch.tensor([[v for v, hit in zip(values, marked, strict=True) if hit]]).double()
    found = module._scores(cosines, own, torch.ones_like(own, dtype=torch.bool))
    assert found[0, :3].tolist() == pytest.approx(averaged(values, marked))


def test_a_model_that_says_one_thing_is_as_good_as_chance() -> None:
    n = 20
    found = scores_of(torch.ones(n, 2, 3), [[i, 100 + i] for i in range(n)]).mean(0)
    gains = sum(1 / math.log2(i + 2) for i in range(10)) / n
    assert found.tolist() == pytest.approx(
        [gains, 1 / n, 10 / n, sum(1 / r for r in range(1, n + 1)) / n]
    )


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, keys = draw(30, 2), [[i % 11, 100 + i % 7] for i in range(30)]
    whole = scores_of(vectors, keys, both_ways=True)
    monkeypatch.setattr(module, "BLOCK", 20)
    torch.testing.assert_close(scores_of(vectors, keys, both_ways=True), whole)


def test_the_numbers_have_names_and_sets_add_up() -> None:
    metric: Metric = retrieval(both_ways=False, learned=False)
    first, second = (
        scores_of(draw(5), [[i, 50 + i] for i in range(5)]),
        scores_of(draw(3, 1), [[i, 50 + i] for i in range(3)]),
    )
    sums = (metric.total(first) + metric.total(second)).tolist()
    found = metric.finals(sums, 8)
    assert list(found) == ["ndcg@10", "recall@1", "recall@10", "mrr"]
    assert len(sums) == metric.width
    whole = torch.cat([first, second]).mean(0).tolist()
    assert list(found.values()) == pytest.approx(whole)
