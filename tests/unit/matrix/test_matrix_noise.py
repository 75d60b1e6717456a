"""Correlated noise, round by round, against the inverse of the whole matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from atoll.errors import PrivacyError
from atoll.matrix import Mechanism, Participation, mechanism
from atoll.noise import Stream, standard_normal
from atoll.tree import Tree, nbytes

KEY = bytes(range(32))
LIKE: Tree = {"b": torch.zeros(3, 2), "a": torch.zeros(()), "c.weight": torch.zeros(4)}


def _draws(number: int) -> Callable[[Sequence[int]], Tensor]:
    stream = Stream(KEY, "noise", number)
    return lambda shape: standard_normal(stream, shape)


def _rounds(made: Mechanism, like: Tree, count: int) -> list[Tree]:
    state, found = made.init(like), []
    for number in range(count):
        noise, state = made.noise(state, _draws(number))
        found.append(noise)
    return found


@pytest.mark.parametrize("shape", [(10, 2, 5), (50, 10, 5), (60, 60, 1)])
def test_it_is_the_inverse_times_independent_noise(shape: tuple[int, int, int]) -> None:
    made = mechanism(Participation(*shape))
    rounds, blt = shape[0], made.strategy.blt
    full = np.eye(rounds)
    for i in range(rounds):
        for j in range(i):
            terms = zip(blt.decay, blt.scale, strict=True)
            full[i, j] = sum(scale * decay ** (i - j - 1) for decay, scale in terms)
    drawn = []
    for number in range(rounds):
        draw = _draws(number)
        drawn.append([draw(LIKE[name].shape).reshape(-1) for name in sorted(LIKE)])
    got = _rounds(made, LIKE, rounds)
    for place, name in enumerate(sorted(LIKE)):
        independent = np.stack([each[place].numpy() for each in drawn])
        want = made.strategy.sensitivity * np.linalg.solve(full, independent)
        have = np.stack([each[name].numpy().reshape(-1) for each in got])
        np.testing.assert_allclose(have, want, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sums_of_rounds_have_the_error_of_the_strategy(dtype: torch.dtype) -> None:
    made = mechanism(Participation(200, 20, 10), dtype=dtype)
    like: Tree = {"w": torch.zeros(20_000)}
    total, spreads = torch.zeros(20_000, dtype=torch.float64), []
    for noise in _rounds(made, like, 200):
        assert noise["w"].dtype == dtype
        total += noise["w"].double()
        spreads.append(float(total.std()) / made.strategy.sensitivity)
    assert max(spreads) == pytest.approx(made.strategy.error, rel=0.05)
    assert spreads[-1] == pytest.approx(made.strategy.error, rel=0.03)


def test_a_state_is_as_many_models_as_there_are_buffers() -> None:
    made = mechanism(Participation(100, 10, 10))
    state = made.init({"w": torch.zeros(1000, dtype=torch.float64)})
    assert nbytes(state) == len(made.strategy.blt.decay) * 8000 + 8
    assert len(made.strategy.blt.decay) <= 5


def test_a_state_through_a_file_goes_on_to_the_same_bits() -> None:
    made = mechanism(Participation(20, 4, 5))
    straight = _rounds(made, LIKE, 20)
    state = made.init(LIKE)
    for number in range(20):
        kept = {name: value.clone() for name, value in state.items()}
        noise, after = made.noise(state, _draws(number))
        for name, value in state.items():
            assert torch.equal(value, kept[name])
        for name, value in noise.items():
            assert torch.equal(value, straight[number][name])
        state = dict(reversed(load(save(after)).items()))


def test_a_round_that_was_not_planned_has_no_noise() -> None:
    made = mechanism(Participation(5, 2, 2))
    state = made.init(LIKE)
    for number in range(5):
        _, state = made.noise(state, _draws(number))
    with pytest.raises(PrivacyError, match="round 6 of a run whose noise was planned for 5"):
        made.noise(state, _draws(5))


def test_what_was_drawn_stays_as_it_was() -> None:
    made = mechanism(Participation(20, 4, 5))
    kept = torch.ones(4, dtype=torch.float64)
    state = made.init({"w": torch.zeros(4)})
    for _ in range(3):
        noise, state = made.noise(state, lambda shape: kept)
        assert torch.equal(kept, torch.ones(4, dtype=torch.float64))
        assert noise["w"].data_ptr() != kept.data_ptr()
