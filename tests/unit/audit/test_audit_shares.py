"""Shares of noise in a secure sum: as much as the accountant takes there to be, or missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import Tensor

from atoll.accounting import Everyone
from atoll.audit import shares
from atoll.audit.shares import noise_of_shares
from atoll.audit.trial import Trial
from atoll.config.privacy import Privacy
from atoll.noise import discrete_gaussian, skellam
from atoll.protection import Spread
from atoll.protection.cohorts import Drawing
from tests.unit.audit.worlds import begun_trial


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return begun_trial(tmp_path_factory.mktemp("world"), rows=1)


def _spread(noise: str, multiplier: float) -> Spread:
    settings = Privacy.model_validate(
        {"mechanism": "distributed", "noise": noise, "noise_multiplier": multiplier, "clip": 0.2,
         "secure_aggregation": True, "corrupt": 0.2}
    )  # fmt: skip
    return Spread(settings, Drawing(12, 12.0, Everyone()), 3)


def _scaled(make: Callable[..., Tensor], size: float) -> Callable[..., Tensor]:
    def less(stream: Any, spread: float, shape: Sequence[int]) -> Tensor:
        return make(stream, spread * size, shape)

    return less


@pytest.mark.parametrize("multiplier", [0.7, 5.0, 20.0])
@pytest.mark.parametrize("noise", ["discrete_gaussian", "skellam"])
def test_shares_are_as_much_noise_as_is_promised_or_are_missed(
    trial: Trial, noise: str, multiplier: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = _spread(noise, multiplier)
    # Shares are made for the smallest sum, and for those of its clients who tell nothing of theirs.
    assert spread.terms.floor == 10  # of 12 clients two may stop, a tenth rounded up
    assert spread.total is not None
    assert spread.total.colluding > 0
    found = noise_of_shares(trial, spread, multiplier)
    assert (found.promised, found.less, found.untried) == (multiplier, False, "")
    # Its standard error over 8,192 values is 0.8 %.
    assert found.multiplier == pytest.approx(multiplier, rel=0.04)
    # A deviation, and a variance.
    make, size = (skellam, 0.25) if noise == "skellam" else (discrete_gaussian, 0.5)
    monkeypatch.setattr(f"atoll.protection.apart.{noise}", _scaled(make, size))
    less = noise_of_shares(trial, spread, multiplier)
    assert less.less
    assert less.multiplier == pytest.approx(multiplier / 2, rel=0.04)


def test_a_sum_that_would_take_too_long_is_said(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MOST_VALUES", 10 * 8192 - 1)
    found = noise_of_shares(trial, _spread("skellam", 1.0), 1.0)
    assert found.untried == "10 clients with 8,192 values each take too long"
    assert (found.multiplier, found.less) == (None, False)
