"""Noise of the server: as large as what a client can send, and on the grid of the sum."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from atoll.aggregators import mean
from atoll.config.privacy import AdaptiveClip
from atoll.core import Algorithm, Channel, ClientWork, Context, Payload, State
from atoll.protection.central import Central, hidden
from atoll.servers import average
from atoll.servers.quantile import CLIP, CLIPS, NORM

ADAPTIVE = AdaptiveClip(adaptive=True, initial=0.3, count_noise=5.0)
STATE: State = {
    "adapter": {"w": torch.zeros(4), "v": torch.zeros(2, 2)}, "head": {"h": torch.zeros(1)},
    CLIP: {NORM: torch.tensor(0.7, dtype=torch.float64)},
    CLIPS: {NORM: torch.tensor([0.3, 0.5], dtype=torch.float64)},
}  # fmt: skip


def _central(clip: float | AdaptiveClip = 0.3, step: float | None = None) -> Central:
    return Central(lambda: 2.0, clip, 4.0, lambda exchange: bytes([exchange]) * 32, step)


def test_noise_is_of_the_longest_update_that_rounding_leaves() -> None:
    # Nine values, each rounded up or down by a step at most: a bound of 0.3 becomes 0.3 + 3 steps.
    assert _central(step=0.25).deviation(STATE) == pytest.approx(2.0 * (0.3 + 0.75))
    assert _central(step=0.25).deviations(STATE, 2) == pytest.approx([2.1, 2.1])
    assert _central().deviation(STATE) == pytest.approx(0.6)


def test_of_an_adaptive_bound_it_is_of_the_one_that_clients_were_sent() -> None:
    # Counting who is below it is part of the release: 1/2² = 1/z² + (½ / 5)².
    z = (1 / 4 - 1 / 100) ** -0.5
    assert z > 2.0
    assert _central(ADAPTIVE).deviation(STATE) == pytest.approx(z * 0.7)
    assert _central(ADAPTIVE).deviations(STATE, 2) == pytest.approx([z * 0.3, z * 0.5])
    assert _central(ADAPTIVE, 0.25).deviation(STATE) == pytest.approx(z * (0.7 + 0.75))


@pytest.mark.parametrize(("expected", "count_noise"), [(4.0, 2.0), (80.0, 4.0)])
def test_a_small_cohort_is_counted_with_noise_that_leaves_the_update_its_share(
    expected: float, count_noise: float
) -> None:
    """A 20th of it, or the multiplier of 2, of which half would spend all."""
    found = replace(_central(AdaptiveClip(adaptive=True, initial=0.3)), expected=expected)
    z = (1 / 4 - 1 / (2 * count_noise) ** 2) ** -0.5
    assert found.on_update == pytest.approx(z)


@pytest.mark.parametrize("step", [None, 2.0**-9])
def test_noise_is_on_the_grid_to_which_updates_are_cut(step: float | None) -> None:
    """On a coarser one the low bits of the sum would be bare."""
    like: Payload = {"update": Channel({"w": torch.zeros(1000)})}
    sent = ("update", "examples", "metrics")
    work = ClientWork("train", lambda broadcast: like, lambda asked: iter(()), sent)
    built = hidden(Algorithm("fit", work, (), mean(), average()), (), _central(step=step))
    grid = step or 2.0 ** (math.floor(math.log2(0.3)) - 20)
    fold, odd = built.aggregator, torch.arange(1000) * 1.7 * grid
    total = fold.finish(fold.add(fold.init(like), {"update": like["update"].with_tree({"w": odd})}))
    cut = total["update"].tree["w"]
    assert torch.equal(cut, torch.floor(torch.arange(1000, dtype=torch.float64) * 1.7) * grid)
    state: State = {"adapter": {"w": torch.zeros(1000)}}
    context = Context(0, "run", 1, 3, ("ada", "bob"), 2)
    whole = built.server.apply(context, state, total)["adapter"]["w"].double() * 4 / grid
    assert torch.equal(whole, whole.round())
    # Not on twice that grid: of steps in noise, odd ones are as many as even ones.
    steps = (whole - cut / grid).abs() % 2
    assert 400 < float(steps.sum()) < 600
