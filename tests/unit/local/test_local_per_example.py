"""What hides a row: coins, noise, secrets, and what an exchange costs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from atoll.accounting import Poisson
from atoll.config.sections import Train
from atoll.core import Channel, Context, Request
from atoll.errors import ConfigError
from atoll.local.per_example import (
    PerExample,
    exchange_key,
    hidden,
    poisson_steps,
)

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
RULE = PerExample(clip=0.5, noise_multiplier=1.2, key=lambda context: KEY)
CONTEXT = Context(0, "run", 2, 7, ("ada", "bob"), 2, "ada")


@pytest.mark.parametrize(
    ("changes", "train", "rows", "epochs", "want"),
    [
        ({}, {}, 80, None, (0.1, 10)),
        ({}, {"num_train_epochs": 3}, 20, None, (0.4, 8)),
        ({}, {"gradient_accumulation_steps": 2}, 80, None, (0.2, 5)),
        ({}, {"max_steps": 4}, 80, None, (0.1, 4)),
        ({}, {"max_steps": 4}, 80, 2.0, (0.1, 20)),
        ({}, {}, 7, None, (1.0, 1)),
        ({}, {}, 56, None, (1 / 7, 7)),
        ({"sampling_rate": 0.05}, {}, 3, None, (0.05, 20)),
        ({"sampling_rate": 0.05}, {}, 80, 0.5, (0.05, 10)),
        ({"sampling_rate": 0.3}, {"max_steps": 1}, 1000, None, (0.3, 1)),
        ({}, {}, 80, 0.001, (0.1, 1)),
    ],
)
def test_what_an_exchange_costs(
    changes: dict[str, Any], train: dict[str, Any], rows: int, epochs: float | None,
    want: tuple[float, int],
) -> None:  # fmt: skip
    found = replace(RULE, **changes).spends(Train(**train), rows, epochs)
    assert (found.unit, found.noise_multiplier, found.steps) == ("example", 1.2, want[1])
    assert isinstance(found.sampling, Poisson)
    assert found.sampling.rate == pytest.approx(want[0])
    assert found.sampling.cap is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip": 0.0}, "clip of a row's gradient is 0.0"),
        ({"clip": math.inf}, "clip of a row's gradient is inf"),
        ({"clip": math.nan}, "clip of a row's gradient is nan"),
        ({"noise_multiplier": -0.1}, "noise multiplier is -0.1"),
        ({"noise_multiplier": math.nan}, "noise multiplier is nan"),
        ({"sampling_rate": 0.0}, "sampling rate of rows is 0.0"),
        ({"sampling_rate": 1.01}, "sampling rate of rows is 1.01"),
    ],
)
def test_numbers_out_of_their_range(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(RULE, **changes)


def test_each_row_has_a_coin_of_its_own() -> None:
    steps = poisson_steps(KEY, 0.15, steps=2000, rows=40)
    drawn = np.zeros((2000, 40), dtype=bool)
    for number, rows in enumerate(steps):
        assert rows == sorted(set(rows))
        drawn[number, rows] = True
    sizes = np.bincount(drawn.sum(1), minlength=41)
    want = stats.binom.pmf(np.arange(41), 40, 0.15)
    few = want * 2000 >= 5
    seen = [*sizes[few], sizes[~few].sum()]
    expected = [*(want[few] * 2000), want[~few].sum() * 2000]
    assert stats.chisquare(seen, expected).pvalue > 1e-3
    assert abs(drawn.mean(0) - 0.15).max() < 5 * math.sqrt(0.15 * 0.85 / 2000)
    # Rows of a step, and steps of a row, know nothing of each other.
    apart = drawn - 0.15
    assert abs((apart.T @ apart)[~np.eye(40, dtype=bool)] / 2000).max() < 5 * 0.1275 / math.sqrt(
        2000
    )
    assert abs((apart[1:] * apart[:-1]).mean()) < 5 * 0.1275 / math.sqrt(80_000)


def test_coins_at_both_ends() -> None:
    assert poisson_steps(KEY, 1.0, steps=2, rows=3) == [[0, 1, 2]] * 2
    assert poisson_steps(KEY, 1e-9, steps=3, rows=5) == [[], [], []]


def test_other_secrets_have_other_coins() -> None:
    one, other = (poisson_steps(key, 0.5, steps=20, rows=30) for key in (KEY, OTHER))
    assert one == poisson_steps(KEY, 0.5, steps=20, rows=30)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_noise_on_a_million_values() -> None:
    draw = torch.Generator().manual_seed(1)
    clean = torch.randn(1_000_000, generator=draw, dtype=torch.float64)
    noise = (hidden(clean, RULE, KEY, 0) - clean).numpy() / (0.5 * 1.2)
    assert abs(noise.var() - 1) < 0.01
    assert abs(noise.mean()) < 5e-3
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise, clean.numpy())[0, 1]) < 5e-3


def test_steps_and_secrets_share_no_noise_and_the_same_ones_repeat_it() -> None:
    zeros = torch.zeros(10_000, dtype=torch.float64)
    drawn = {
        (key, step): hidden(zeros, RULE, key, step) for key in (KEY, OTHER) for step in (0, 1, 10)
    }
    for place, one in drawn.items():
        assert torch.equal(one, hidden(zeros, RULE, *place))
    for a, b in itertools.combinations(drawn.values(), 2):
        # A value in a million or so meets another one on the grid.
        assert int((a == b).sum()) < 5
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.05


def test_what_is_released_lies_on_a_grid_that_does_not_depend_on_the_sum() -> None:
    draw = torch.Generator().manual_seed(2)
    for scale in (1e-9, 1.0, 1e4):
        clean = scale * torch.randn(1000, generator=draw, dtype=torch.float64)
        units = hidden(clean, RULE, KEY, 3) / 2.0**-21  # 0.6 lies between 2⁻¹ and 2⁰
        assert torch.equal(units, units.round())
        assert bool((units % 2 == 1).any())
        assert torch.equal(units * 2.0**-21, hidden(clean, RULE, KEY, 3))


def test_without_noise_a_sum_stays_as_it_is() -> None:
    clean = torch.tensor([1e-12, 3.0], dtype=torch.float64)
    assert torch.equal(hidden(clean, replace(RULE, noise_multiplier=0.0), KEY, 0), clean)


def _request(context: Context, **values: float) -> Request:
    tree = {name: torch.tensor([value]) for name, value in values.items()}
    return Request(context, {"adapter": Channel(tree)})


def test_the_secret_of_an_exchange_is_its_own() -> None:
    asked = _request(CONTEXT, w=1.0)
    keys = {
        "same": exchange_key(RULE, asked),
        "secret": exchange_key(replace(RULE, key=lambda context: OTHER), asked),
        "client": exchange_key(RULE, _request(CONTEXT.at("bob"), w=1.0)),
        "exchange": exchange_key(RULE, _request(replace(CONTEXT, exchange=8), w=1.0)),
        "run": exchange_key(RULE, _request(replace(CONTEXT, run="other"), w=1.0)),
        # Noise that hid one answer would show the difference to another one.
        "values": exchange_key(RULE, _request(CONTEXT, w=1.0 + 2**-20)),
        "names": exchange_key(RULE, _request(CONTEXT, v=1.0)),
        "channel": exchange_key(RULE, Request(CONTEXT, {"head": asked.payload["adapter"]})),
    }
    assert len(set(keys.values())) == len(keys)
    assert all(len(key) == 32 for key in keys.values())
    assert exchange_key(RULE, _request(CONTEXT, w=1.0)) == keys["same"]
    # The seed is public, and the cohort changes nothing.
    elsewhere = replace(CONTEXT, seed=9, cohort=("ada",))
    assert exchange_key(RULE, _request(elsewhere, w=1.0)) == keys["same"]


def test_the_secret_is_asked_for_the_moment() -> None:
    seen: list[Context] = []

    def key(context: Context) -> bytes:
        seen.append(context)
        return KEY

    exchange_key(replace(RULE, key=key), _request(CONTEXT, w=1.0))
    assert seen == [CONTEXT]
