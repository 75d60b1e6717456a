"""Sums that one client may open or close: which cohorts they are, and when they are too many."""

from __future__ import annotations

from itertools import product

import pytest
from scipy.stats import binom

from atoll.accounting import Everyone, Poisson
from atoll.config.privacy import Privacy
from atoll.errors import ConfigError
from atoll.protection.cohorts import Drawing
from atoll.protection.quorum import decides, quorum_cost
from atoll.secagg import Terms
from atoll.secagg.degree import degree, spare

TERMS = [Terms(*chosen) for chosen in product((0, 0.1, 0.3), (0, 0.1, 0.25), (2, 5, 9))]


def _sums(clients: int, terms: Terms) -> bool:
    try:
        degree(clients, terms)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("terms", TERMS)
def test_who_may_stop_is_what_a_configuration_leaves(terms: Terms) -> None:
    for clients in range(1, 60):
        found = spare(clients, terms)
        assert (found >= 0) == _sums(clients, terms)
        if found >= 0:
            chosen = degree(clients, terms)
            assert clients - found == max(terms.floor, chosen.signers)
            assert chosen.threshold <= chosen.signers


@pytest.mark.parametrize("terms", TERMS)
def test_a_client_decides_where_any_stops_make_it_so(terms: Terms) -> None:
    """All numbers of others that stop, with the client, with it and stopped, and without."""

    def opened(clients: int, gone: int) -> bool:
        return gone <= spare(clients, terms)

    for others in range(40):
        most = terms.of(others + 1)[1]
        want = any(
            opened(others, gone) != opened(others + 1, gone + stops)
            for stops in (0, 1)
            for gone in range(most - stops + 1)
        )
        assert decides(others, lambda n: spare(n, terms), lambda n: terms.of(n)[1]) == want


def _drawing(population: int, rate: float, cap: int | None = None) -> Drawing:
    sampling = Poisson(rate=rate, cap=cap, population=None if cap is None else population)
    return Drawing(population, population * rate, sampling)


def test_the_cost_is_that_of_four_or_five_others_at_the_defaults() -> None:
    """With five clients one may stop, so that the sixth decides, too."""
    privacy = Privacy(epsilon=8, secure_aggregation=True)
    found = quorum_cost(privacy, _drawing(100, 0.3), 100)
    a_round = 0.3 / 0.7 * (binom.pmf(4, 99, 0.3) + binom.pmf(5, 99, 0.3))
    assert found == pytest.approx(100 * a_round, rel=1e-6)
    encrypted = privacy.model_copy(update={"secure_aggregation": "ckks"})
    assert quorum_cost(encrypted, _drawing(100, 0.3), 100) == pytest.approx(found)


def test_a_full_cohort_decides_where_it_has_none_to_spare() -> None:
    privacy = Privacy(epsilon=8, secure_aggregation=True, min_survivors=10)
    found = quorum_cost(privacy, _drawing(100, 0.5, cap=10), 1)
    assert found == pytest.approx(binom.sf(8, 99, 0.5), rel=1e-6)
    assert quorum_cost(privacy, Drawing(100, 100, Everyone()), 1) == 0
