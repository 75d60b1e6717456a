"""Noise on a sum: its size, where it comes from, and a bound that follows a quantile."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from atoll.core import Channel, Context, Payload, Server, State
from atoll.errors import PrivacyError
from atoll.matrix import ROUND
from atoll.noise import Stream, standard_normal
from atoll.servers import average
from atoll.servers.noised import Noise, noised, unveiled, veiled
from atoll.servers.quantile import BELOW, CLIP, CLIPS, Following, following_quantile, split_noise

KEY, STEP = bytes(range(32)), 2.0**-24
BIG = (1000, 1000)


def _context(exchange: int = 0) -> Context:
    return Context(0, "run", 1, exchange, (), 100)


def _noise(deviation: float, denominator: float = 4.0) -> Noise:
    return Noise(lambda state: deviation, denominator, STEP, lambda exchange: _key(exchange))


def _key(exchange: int) -> bytes:
    return bytes([exchange]) * 32


def _moved(server: Server, total: torch.Tensor, exchange: int = 0) -> torch.Tensor:
    state: State = {"adapter": {"w": torch.zeros_like(total, dtype=torch.float32)}}
    aggregate: Payload = {"update": Channel({"w": total}, "sum")}
    return server.apply(_context(exchange), state, aggregate)["adapter"]["w"]


def test_noise_has_its_deviation_over_the_expected_cohort() -> None:
    server = noised(average(), _noise(3.0, denominator=4.0))
    found = _moved(server, torch.full(BIG, 2.0, dtype=torch.float64)).double().numpy().reshape(-1)
    assert found.mean() == pytest.approx(2.0 / 4.0, abs=5 * 0.75 / 1000)
    assert found.var() == pytest.approx((3.0 / 4.0) ** 2, rel=0.01)
    assert stats.kstest((found - 0.5) / 0.75, "norm").pvalue > 1e-3


def test_noise_is_on_the_grid_of_the_sum() -> None:
    server = noised(average(), Noise(lambda s: 1.0, 1.0, 2.0**-8, lambda e: KEY))
    found = _moved(server, torch.full((50, 50), 0.25, dtype=torch.float64)).double()
    assert torch.equal(found * 256, (found * 256).round())
    assert float(found.std()) > 0.5


def test_noise_goes_to_the_nearest_step_and_nothing_else_is_rounded() -> None:
    drawn = standard_normal(Stream(_key(0), "noise", "w"), (1000,))
    whole = np.rint(drawn.numpy() * 3.0 / STEP)
    # More steps than a float32 tells apart, and all but one of them are taken back.
    assert np.median(np.abs(whole)) > 2**24
    total = torch.from_numpy((1 - whole) * STEP)
    found = _moved(noised(average(), _noise(3.0, denominator=1.0)), total)
    assert torch.equal(found, torch.full((1000,), STEP))


def test_a_restarted_exchange_repeats_its_noise_and_no_other_does() -> None:
    server, nothing = noised(average(), _noise(1.0)), torch.zeros(100, dtype=torch.float64)
    assert torch.equal(_moved(server, nothing, 3), _moved(server, nothing, 3))
    assert not torch.equal(_moved(server, nothing, 3), _moved(server, nothing, 4))


def test_values_of_two_names_share_no_noise() -> None:
    zeros = torch.zeros(100, dtype=torch.float64)
    state: State = {"adapter": {"a": torch.zeros(100), "b": torch.zeros(100)}}
    aggregate = {"update": Channel({"a": zeros, "b": zeros}, "sum")}
    found = noised(average(), _noise(1.0)).apply(_context(), state, aggregate)["adapter"]
    assert abs(float(np.corrcoef(found["a"], found["b"])[0, 1])) < 0.5


def test_what_is_veiled_comes_back_under_its_own_key_alone() -> None:
    buffers = {
        ROUND: torch.tensor(3), "w": torch.randn(2, 5, dtype=torch.float64),
        "none": torch.zeros(2, 0, dtype=torch.float64),
        "row": torch.randn(1, 4, dtype=torch.float64).expand(2, 4),
    }  # fmt: skip
    hidden = veiled(buffers, KEY)
    assert not torch.equal(hidden["w"], buffers["w"])
    found = unveiled(hidden, KEY)
    assert found.keys() == buffers.keys()
    assert all(torch.equal(found[name], value) for name, value in buffers.items())
    with pytest.raises(PrivacyError, match="hidden under another secret"):
        unveiled(hidden, _key(1))


def test_without_noise_it_is_the_sum_over_the_expected_cohort() -> None:
    total = torch.arange(6, dtype=torch.float64)
    assert torch.equal(_moved(noised(average(), _noise(0.0)), total), (total / 4).float())


def _following(*, quantile: float = 0.5, count_noise: float = 1e-9, initial: float = 1.0) -> Server:
    plain = Noise(lambda s: 0.0, 10.0, STEP, _key)
    rule = Following(initial, initial / 8, 100.0, quantile, 0.2, lambda: count_noise)
    return following_quantile(noised(average(), plain), rule, plain)


def _told(below: float, adapter: torch.Tensor) -> Payload:
    return {
        "update": Channel({"w": torch.zeros_like(adapter, dtype=torch.float64)}, "sum"),
        BELOW: Channel({"value": torch.tensor(below, dtype=torch.float64)}, "sum"),
    }


@pytest.mark.parametrize(("count", "below"), [(10, 10), (10, 0), (10, 7), (4, 1)])
def test_the_bound_moves_as_the_paper_says(count: int, below: int) -> None:
    server = _following(quantile=0.3)
    state = server.init({"adapter": {"w": torch.zeros(2)}})
    told = _told(below - count / 2, state["adapter"]["w"])
    state = server.apply(_context(), state, told)
    # Of 10 expected clients; one that is absent counts as half.
    share = 0.5 + (below - count / 2) / 10
    assert float(state[CLIP]["norm"]) == pytest.approx(math.exp(-0.2 * (share - 0.3)), rel=1e-9)
    assert torch.equal(server.broadcast(state, "a")[CLIP].tree["norm"], state[CLIP]["norm"])


def test_the_bound_comes_to_rest_at_the_quantile() -> None:
    server, norms = _following(quantile=0.5, initial=0.5), np.linspace(0.1, 1.0, 10)
    state, sent = server.init({"adapter": {"w": torch.zeros(2)}}), list[float]()
    for exchange in range(60):
        sent.append(float(server.broadcast(state, "a")[CLIP].tree["norm"]))
        below = float(np.where(norms <= float(state[CLIP]["norm"]), 0.5, -0.5).sum())
        told = _told(below, state["adapter"]["w"])
        state = server.apply(_context(exchange), state, told)
    assert np.median(norms) * 0.8 < float(state[CLIP]["norm"]) < np.median(norms) * 1.25
    assert state[CLIPS]["norm"].tolist() == sent


def test_the_count_has_noise_of_its_own() -> None:
    server = _following(count_noise=2.0)
    moved = []
    for exchange in range(200):
        state = server.init({"adapter": {"w": torch.zeros(2)}})
        state = server.apply(_context(exchange), state, _told(0.0, state["adapter"]["w"]))
        moved.append(-math.log(float(state[CLIP]["norm"])) / 0.2 * 10)
    assert np.std(moved) == pytest.approx(2.0, rel=0.2)


def test_noise_on_the_count_moves_the_bound_no_farther_than_its_ends() -> None:
    server, found = _following(count_noise=1e12), set[float]()
    for exchange in range(8):
        state = server.init({"adapter": {"w": torch.zeros(2)}})
        state = server.apply(_context(exchange), state, _told(0.0, state["adapter"]["w"]))
        found.add(float(state[CLIP]["norm"]))
    assert found == {1 / 8, 100.0}


def test_update_and_count_together_are_one_release() -> None:
    # One client moves (update / C, Σ (b − ½)) by at most (1, ½), each with noise of its own.
    noise, count_noise = 0.9, 2.5
    on_update = split_noise(noise, count_noise)
    assert (1 / on_update) ** 2 + (0.5 / count_noise) ** 2 == pytest.approx(1 / noise**2)
    assert math.isnan(split_noise(5.0, 2.0))
    assert split_noise(0.0, 1.0) == 0.0
