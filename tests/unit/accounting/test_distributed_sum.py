"""A whole round of distributed noise: the sum of what clients send, before and after its noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from atoll.accounting.grid import Mechanism, Sum, planned
from atoll.noise import Stream, discrete_gaussian, rounded, skellam

KEY = bytes(range(32))
VALUES, CLIENTS, CLIP = 20_000, 8, 0.3


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_a_sum_is_that_of_the_updates_with_the_noise_that_was_planned(mechanism: Mechanism) -> None:
    plan = planned(Sum(CLIP, VALUES, CLIENTS, CLIENTS), 2.0, mechanism)
    updates = torch.randn(CLIENTS, VALUES, generator=torch.Generator().manual_seed(5)).double()
    updates *= CLIP / updates.norm(dim=1, keepdim=True) * (1 - 1e-12)
    total = torch.zeros(VALUES, dtype=torch.int32)
    for client, update in enumerate(updates):
        stream = Stream(KEY, "noise", client)
        whole = rounded(stream, update / plan.spacing, plan.norm)
        assert sum(x * x for x in whole.tolist()) <= plan.norm**2
        if mechanism == "skellam":
            whole += skellam(stream, plan.sigma**2, (VALUES,))
        else:
            whole += discrete_gaussian(stream, plan.sigma, (VALUES,))
        assert int(whole.abs().max()) <= plan.top
        # Modulo 2³², as masked words are added.
        total = (total.long() + whole.long()).to(torch.int32)
    noise = (total.double() * plan.spacing - updates.sum(0)).numpy()
    # The noise of all clients, and a sixth of a squared grid unit of rounding for each.
    planned_noise = math.hypot(2.0 * CLIP, plan.spacing * math.sqrt(CLIENTS / 6))
    assert noise.std() == pytest.approx(planned_noise, rel=0.02)
    assert stats.kstest(noise / planned_noise, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise, updates.sum(0))[0, 1]) < 5 / math.sqrt(VALUES)
