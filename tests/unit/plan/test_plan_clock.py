"""Lines through samples: found where there is one, never negative, as scikit-learn finds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from atoll.plan.clock import Line, Seconds, fit, timed

SHARE = st.floats(0.0, 10.0)
AMOUNTS = st.lists(
    st.tuples(st.floats(0.1, 50.0), st.floats(0.1, 50.0), st.floats(0.1, 50.0)),
    min_size=4, max_size=12,
)  # fmt: skip


@given(st.tuples(SHARE, SHARE, SHARE), AMOUNTS)
def test_a_line_that_is_there_foretells_its_samples(
    shares: tuple[float, float, float], amounts: list[tuple[float, float, float]]
) -> None:
    line = Line(tuple(Seconds(share + 0.01, 2 * share + 0.01) for share in shares))
    samples = [(one, line.at(*one)) for one in amounts]
    found = fit(samples)
    for one, taken in samples:
        assert found.at(*one).wall == pytest.approx(taken.wall, rel=0.05)
        assert found.at(*one).cpu == pytest.approx(taken.cpu, rel=0.05)
    assert all(share.wall >= 0 and share.cpu >= 0 for share in found.shares)


@given(AMOUNTS, st.data())
def test_the_shares_are_those_of_least_squares_without_negative_ones(
    amounts: list[tuple[float, float, float]], data: st.DataObject
) -> None:
    taken = data.draw(st.lists(st.floats(0.1, 20.0), min_size=len(amounts), max_size=len(amounts)))
    found = fit([(one, Seconds(t, t)) for one, t in zip(amounts, taken, strict=True)])
    scaled = np.array(amounts) / np.array(taken)[:, None]
    other = LinearRegression(fit_intercept=False, positive=True).fit(scaled, np.ones(len(taken)))

    def error(shares: np.ndarray) -> float:
        return float(((scaled @ shares - 1) ** 2).sum())

    own = np.array([share.wall for share in found.shares])
    # A column more is taken only where it is worth a thousandth.
    assert error(own) <= error(other.coef_) * 1.005 + 1e-9


def test_time_passes_while_work_is_done() -> None:
    found, taken = timed(lambda: sum(range(200_000)), torch.device("cpu"))
    assert found == 199_999 * 100_000
    assert taken.wall > 0
    assert taken.cpu > 0
    assert (Seconds(1.0, 1.0) - Seconds(3.0, 0.5)) == Seconds(0.0, 0.5)
