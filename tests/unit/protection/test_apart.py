"""Noise of clients: how much there is, on which grid, and that no second look takes it off."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from atoll.accounting.grid import Mechanism, Sum, planned
from atoll.core import Channel, Context
from atoll.noise import Vault, derive
from atoll.protection.apart import own_noise, share
from atoll.protection.parties import simulated
from atoll.protection.summed import Summed
from atoll.secagg import Moment, Terms, agree

KEY = bytes(range(32))
AT = Context(0, "run", 1, 3, ("ada", "bob"), 2, "ada")


def _hidden(tree: dict[str, torch.Tensor], sigma: float, key: bytes = KEY) -> torch.Tensor:
    stage = own_noise(lambda: sigma, lambda at, said: derive(key, at.client, said))
    payload, _ = stage.encode(AT, {"update": Channel(tree, l2=1.0)}, {})
    return torch.cat([value.reshape(-1) for value in payload["update"].tree.values()])


def test_local_noise_has_its_size_and_lies_on_a_grid_that_float32_holds() -> None:
    update = torch.zeros(50_000)
    update[0] = 1.0
    found = _hidden({"w": update}, 2.5).double() - update
    assert stats.kstest(found.numpy() / 2.5, "norm").pvalue > 1e-3
    step = 2.0 ** (1 - 19)
    assert torch.equal((found + update) / step, ((found + update) / step).round())


def test_the_same_update_has_the_same_noise_and_another_one_other_noise() -> None:
    one, other = torch.zeros(2000), torch.zeros(2000)
    other[0] = 2**-10
    assert torch.equal(_hidden({"w": one}, 1.0), _hidden({"w": one}, 1.0))
    apart = _hidden({"w": one}, 1.0) - _hidden({"w": other}, 1.0)
    # Two independent noises: their difference has a variance of 2.
    assert float(apart.var()) == pytest.approx(2, rel=0.2)
    assert not torch.equal(_hidden({"w": one}, 1.0), _hidden({"w": one}, 1.0, bytes(32)))


def test_tensors_of_one_update_share_no_noise() -> None:
    found = _hidden({"a": torch.zeros(500), "b": torch.zeros(500)}, 1.0)
    assert abs(float(torch.corrcoef(found.view(2, 500))[0, 1])) < 0.2


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_shares_add_up_to_the_noise_of_the_sum(mechanism: Mechanism) -> None:
    clients, values, clip = 12, 4000, 0.5
    plan = planned(Sum(clip, values, asked=20, floor=clients), 1.5, mechanism)
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(clients, values))
    updates *= clip / np.linalg.norm(updates, axis=1, keepdims=True)
    words = [share(plan, one.astype(np.float32), derive(KEY, n)) for n, one in enumerate(updates)]
    assert all(one.dtype == np.int32 and abs(one).max() <= plan.top for one in words)
    noise = np.sum(words, axis=0) * plan.spacing - updates.sum(axis=0)
    # The noise of the smallest sum is 1.5 clips; rounding adds a quarter of a square step a client.
    size = math.sqrt((1.5 * clip) ** 2 + clients * plan.spacing**2 / 4)
    assert noise.std() == pytest.approx(size, rel=0.05)
    assert stats.kstest(noise / noise.std(), "norm").pvalue > 1e-3
    assert abs(noise.mean()) < 5 * size / math.sqrt(values)


def test_shares_of_a_key_are_the_same_and_of_others_not() -> None:
    plan = planned(Sum(1.0, 100, asked=5, floor=5), 1.0, "discrete_gaussian")
    value = np.full(100, 0.05, np.float32)
    drawn = [share(plan, value, derive(KEY, n)).tobytes() for n in (0, 0, 1, 2)]
    assert sorted(Counter(drawn).values()) == [1, 1, 2]
    assert [one == other for one, other in pairwise(drawn)] == [True, False, False]


def test_under_masks_too_the_same_update_has_the_same_noise_and_another_one_other_noise() -> None:
    names, size = tuple("abcde"), 4000
    plan = planned(Sum(1.0, size, asked=5, floor=5), 1.0, "discrete_gaussian")
    like = {"update": Channel({"w": torch.zeros(size)}, "sum")}
    summed = Summed(like, {"update": 1.0}, True, 5, plan)
    own = agree(Moment("r", 1, 1), names, summed.channels(), Terms(0.0, 0.0, floor=5))
    member = simulated(names, Vault()).member("a")
    member.advert(own)
    one, other = np.zeros(size, np.float32), np.zeros(size, np.float32)
    other[0] = 0.01
    first, again, second = (
        summed.words(own, member, {"update": each.copy()}).copy() for each in (one, one, other)
    )
    assert np.array_equal(first, again)
    apart = (first - second)[1:].astype(float)
    assert apart.var() == pytest.approx(2 * plan.sigma**2, rel=0.15)
