"""InfoNCE within each client against its formula, row by row, and its edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from atoll.models.contrast import Contrast, key_of
from atoll.models.objective import Batch

PADDING = [-100, -100]


def batch_of(keys: list[list[int]], *, clients: int = 1) -> Batch:
    return Batch({}, torch.tensor(keys), clients=clients)


def draw(rows: int, seed: int = 0, *, width: int = 5) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=noise, dtype=torch.float64)


def plain(vectors: Tensor, keys: list[list[int]], temperature: float, symmetric: bool) -> list[Any]:
    """The loss of one client's rows, as the papers write it, one candidate after another."""
    views = len(keys[0])
    unit = [v / v.norm() for v in vectors]
    said = [(unit[i * views + v], row[v]) for i, row in enumerate(keys) for v in range(views)]
    anchors, others = said[::views], [x for i, x in enumerate(said) if i % views]
    positives = said[1::views]

    def partners(key: int) -> set[int]:
        return {row[1] for row in keys if row[0] == key}

    losses = []
    for (a, ka), (p, _) in zip(anchors, positives, strict=True):
        own = (a @ p / temperature).exp()
        rest = [(a @ o / temperature).exp() for o, ko in others if ko not in partners(ka) | {ka}]
        loss = -(own / (own + sum(rest))).log()
        if symmetric:
            back = [
                (b @ p / temperature).exp()
                for (b, kb), (_, kp) in zip(anchors, positives, strict=True)
                for q, kq in [(p, _key(positives, p))]
                if kq not in partners(kb) | {kb}
            ]
            loss = (loss - (own / (own + sum(back))).log()) / 2
        losses.append(float(loss))
    return losses


def _key(positives: list[Any], vector: Tensor) -> int:
    return next(key for found, key in positives if found is vector)


CASES: dict[str, list[list[int]]] = {
    "all different": [[1, 11], [2, 12], [3, 13], [4, 14]],
    "one positive twice": [[1, 11], [2, 11], [3, 13], [4, 14]],
    "one anchor twice": [[1, 11], [1, 12], [3, 13], [4, 14]],
    "an anchor is another's positive": [[1, 11], [2, 1], [3, 13], [4, 3]],
    "negatives": [[1, 11, 21], [2, 12, 22], [3, 13, 23]],
    "a negative that is a positive": [[1, 11, 12], [2, 12, 11], [3, 13, 13]],
    "all the same": [[1, 11], [1, 11], [1, 11]],
    "one row": [[1, 11]],
}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_the_formula(name: str, symmetric: bool) -> None:
    keys = CASES[name]
    vectors = draw(len(keys) * len(keys[0]))
    found = Contrast(0.2, symmetric).losses(vectors, batch_of(keys))
    torch.testing.assert_close(
        found, torch.tensor(plain(vectors, keys, 0.2, symmetric), dtype=torch.float64)
    )


def test_one_client_in_both_directions_is_clips_own_loss() -> None:
    vectors = draw(12)
    keys = [[i, 100 + i] for i in range(6)]
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    texts, images = unit[1::2], unit[::2]
    expected = image_text_contrastive_loss(texts @ images.T * 14.3)
    found = Contrast(1 / 14.3, True).losses(vectors, batch_of(keys))
    torch.testing.assert_close(found.mean(), expected)
    learned = torch.cat([vectors, torch.full((12, 1), math.log(14.3), dtype=torch.float64)], 1)
    found = Contrast(None, True).losses(learned, batch_of(keys))
    torch.testing.assert_close(found.mean(), expected)


def test_one_direction_is_the_ranking_loss_of_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(torch.nn.Identity())
    for views in (2, 3):
        vectors = draw(5 * views)
        keys = [[10 * i + v for v in range(views)] for i in range(5)]
        expected = loss.compute_loss_from_embeddings(
            [vectors[v::views] for v in range(views)], labels=None
        )
        found = Contrast(0.05, False).losses(vectors, batch_of(keys))
        torch.testing.assert_close(found.mean(), expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_clients_and_padding_do_not_touch_each_other(symmetric: bool) -> None:
    """Two clients of uneven rows: each has the loss and gradient that it has alone."""
    contrast = Contrast(None, symmetric)
    ada, bob = draw(8, 1, width=6), draw(4, 2, width=6)
    padding = torch.full((4, 6), 1e3, dtype=torch.float64)
    together = torch.cat([ada, bob, padding]).requires_grad_()
    # Both have the same things: who is in another client's rows is nobody's duplicate.
    keys = [[1, 11], [2, 12], [3, 13], [4, 14], [1, 12], [9, 11], PADDING, PADDING]
    losses = contrast.losses(together, batch_of(keys, clients=2))
    assert losses[6:].tolist() == [0.0, 0.0]
    losses.sum().backward()
    assert together.grad is not None
    assert not together.grad[12:].any()
    for own, rows, place in ((ada, keys[:4], 0), (bob, keys[4:6], 8)):
        alone = own.clone().requires_grad_()
        found = contrast.losses(alone, batch_of(rows))
        torch.testing.assert_close(losses[place // 2 :][: len(rows)], found)
        found.sum().backward()
        torch.testing.assert_close(together.grad[place : place + len(own)], alone.grad)


def test_a_single_row_learns_nothing_and_zero_vectors_are_finite() -> None:
    vectors = torch.zeros(4, 3, requires_grad=True)
    losses = Contrast(0.05, True).losses(vectors, batch_of([[1, 2], [3, 4]]))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    alone = draw(2).requires_grad_()
    loss = Contrast(0.05, False).losses(alone, batch_of([[1, 2]]))
    loss.sum().backward()
    assert loss.item() == 0
    assert alone.grad is not None
    assert not alone.grad.any()


def test_a_learned_scale_stops_at_a_hundred_and_has_a_gradient_below() -> None:
    keys = [[1, 2], [3, 4]]
    for log, moves in ((5.0, False), (2.0, True)):
        column = torch.full((4, 1), log, dtype=torch.float64, requires_grad=True)
        outputs = torch.cat([draw(4), column], 1)
        losses = Contrast(None, False).losses(outputs, batch_of(keys))
        losses.sum().backward()
        assert column.grad is not None
        assert bool(column.grad.any()) == moves
    fixed = Contrast(0.01, False).losses(draw(4), batch_of(keys))
    large = torch.cat([draw(4), torch.full((4, 1), 9.0, dtype=torch.float64)], 1)
    torch.testing.assert_close(Contrast(None, False).losses(large, batch_of(keys)), fixed)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
def test_any_mix_of_equal_things(pairs: list[tuple[int, int]]) -> None:
    keys = [[a, b] for a, b in pairs]
    vectors = draw(2 * len(keys), 3)
    found = Contrast(0.5, False).losses(vectors, batch_of(keys))
    assert found.tolist() == pytest.approx(plain(vectors, keys, 0.5, False))
    assert bool((found >= 0).all())


def test_keys_are_exact_numbers_that_differ() -> None:
    found = {key_of(np.arange(n, dtype=np.int32)) for n in range(2000)}
    assert len(found) == 2000
    assert all(0 <= key < 2**52 and int(float(key)) == key for key in found)
    assert key_of(np.zeros(3, np.uint8)) == key_of(np.zeros((1, 3), np.uint8))
