"""The span check on planted vectors, and its figures against counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.audit.span import EXACT, basis_of, recovered, residuals


def _planted(seed: int, *, inputs: int = 6, rows: int = 9, d: int = 32) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(inputs, d, generator=draw)
    return x, torch.randn(rows, inputs, generator=draw) @ x, torch.randn(40, d, generator=draw)


@pytest.mark.parametrize("seed", range(5))
def test_inputs_lie_in_the_span_of_their_sums_and_others_do_not(seed: int) -> None:
    x, sums, others = _planted(seed)
    basis = basis_of(sums)
    assert basis is not None
    assert basis.shape == (32, 6)
    torch.testing.assert_close(basis.T @ basis, torch.eye(6, dtype=basis.dtype))
    assert float(residuals(x, basis).max()) < EXACT
    found = residuals(others, basis)
    for vector, residual in zip(others, found, strict=True):
        # Against least squares: the part of a vector that no sum of the rows makes.
        fit, *_ = np.linalg.lstsq(sums.numpy().T, vector.numpy(), rcond=1e-5)
        rest = np.linalg.norm(vector.numpy() - sums.numpy().T @ fit) / float(vector.norm())
        assert float(residual) == pytest.approx(rest, rel=1e-3)


def test_fewer_sums_than_inputs_still_tell_some() -> None:
    x, sums, others = _planted(0, rows=3)
    basis = basis_of(sums)
    assert basis is not None
    assert basis.shape == (32, 3)
    assert float(residuals(x, basis).mean()) < float(residuals(others, basis).mean())


def test_what_says_nothing() -> None:
    assert basis_of(torch.zeros(4, 8)) is None
    assert basis_of(torch.zeros(0, 8)) is None
    assert basis_of(torch.randn(4, 1)) is None


def test_little_noise_everywhere_leaves_what_stands_out() -> None:
    x, sums, others = _planted(3, rows=64)
    noise = torch.randn(64, 32, generator=torch.Generator().manual_seed(9))
    basis = basis_of(sums + 1e-3 * noise)
    assert basis is not None
    assert basis.shape == (32, 6)
    assert float(residuals(x, basis).max()) < 0.05 < float(residuals(others, basis).min())


@given(st.integers(0, 1000), st.integers(1, 8))
@settings(max_examples=40)
def test_recall_is_what_guesses_in_order_find(seed: int, true: int) -> None:
    draw = np.random.default_rng(seed)
    scores = torch.from_numpy(draw.permutation(20) / 20)
    places = draw.choice(20, size=true, replace=False).tolist()
    found = recovered(scores, places)
    best = sorted(range(20), key=lambda place: float(scores[place]))[:true]
    assert found.recall == pytest.approx(len(set(best) & set(places)) / true)
    assert (found.chance, found.true) == (true / 20, true)
    others = [p for p in range(20) if p not in places]
    pairs = [float(scores[a]) < float(scores[b]) for a in places for b in others]
    assert found.auc == pytest.approx(sum(pairs) / len(pairs))


def test_scores_that_are_all_the_same_find_what_chance_finds() -> None:
    found = recovered(torch.ones(50), [1, 2, 3])
    assert (found.recall, found.auc) == (pytest.approx(3 / 50), 0.5)
    assert (found.exact, found.wrong) == (0, 0)


def test_exact_ones_and_wrong_ones() -> None:
    scores = torch.tensor([0.0, 1e-4, 1e-2, 0.5, 1e-4])
    found = recovered(scores, [0, 1, 2])
    assert (found.exact, found.wrong) == (2, 1)
