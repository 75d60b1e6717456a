"""Degrees against scipy's hypergeometric distribution, and the ring against networkx."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import networkx
import pytest
from scipy.stats import chisquare, hypergeom

from atoll.errors import ConfigError
from atoll.secagg import Terms
from atoll.secagg.degree import check_spare, degree, holds_together
from atoll.secagg.graph import ring


# Neighbours and thresholds found before with another program, for sigma = 40 and eta = 30 bits.
@pytest.mark.parametrize(("clients", "corrupt", "dropping", "expected"), [
    (50, 0.1, 0.1, (12, 7)), (50, 0.2, 0.2, (22, 12)), (100, 0.1, 0.1, (22, 12)),
    (100, 0.2, 0.1, (32, 21)), (100, 0.2, 0.2, (42, 22)), (100, 0.33, 0.1, (42, 32)),
    (1000, 0.05, 0.05, (34, 18)), (1000, 0.1, 0.1, (52, 28)), (1000, 0.2, 0.2, (112, 58)),
    (1000, 1 / 3, 0.1, (114, 78)), (2000, 0.2, 0.2, (122, 64)),
])  # fmt: skip
def test_degrees_hold_their_bounds_and_smaller_ones_do_not(
    clients: int, corrupt: float, dropping: float, expected: tuple[int, int]
) -> None:
    terms = Terms(corrupt, dropping)
    found = degree(clients, terms)
    assert (found.neighbours, found.threshold) == expected
    bad, gone = terms.of(clients)

    def holds(neighbours: int, threshold: int) -> bool:
        private = clients * hypergeom.sf(threshold - 1, clients - 1, bad, neighbours) <= 2**-40
        staying = hypergeom.sf(neighbours - threshold, clients - 1, gone, neighbours)
        return bool(private and clients * staying <= 2**-30 and 2 * threshold > neighbours + 1)

    assert holds(found.neighbours, found.threshold)
    assert not holds(found.neighbours, found.threshold - 1)
    for neighbours in range(2, found.neighbours, 2):
        assert not any(holds(neighbours, t) for t in range(1, neighbours + 2))


def test_the_ring_of_a_cohort_does_not_fall_apart() -> None:
    def cut(clients: int, bad: int, neighbours: int) -> float:
        return clients**2 / 2 * math.comb(bad, neighbours) / math.comb(clients, neighbours)

    for clients, corrupt, dropping in ((50, 0.1, 0.1), (100, 0.2, 0.2), (1000, 0.1, 0.1)):
        terms = Terms(corrupt, dropping)
        assert cut(clients, sum(terms.of(clients)), degree(clients, terms).neighbours) <= 2**-40
    # Where nobody drops out, this is what decides.
    assert (degree(100, Terms(0.2, 0.0)).neighbours, cut(100, 20, 18) <= 2**-40) == (18, True)
    assert cut(100, 20, 16) > 2**-40
    assert 100 * hypergeom.sf(16, 99, 20, 16) <= 2**-40


def test_groups_around_a_client_are_not_below_the_floor() -> None:
    assert degree(100, Terms(0.1, 0.1)).threshold == 12
    higher = degree(100, Terms(0.1, 0.1, floor=20))
    assert higher.threshold + 1 >= 20
    assert (higher.threshold, higher.neighbours) == (19, 36)


@pytest.mark.parametrize(("clients", "expected"), [(200, 42), (912, 186), (60, 14)])
def test_a_high_floor_is_held_by_a_ring_that_nobody_can_cut(clients: int, expected: int) -> None:
    terms = Terms(0.1, 0.1, floor=math.ceil(0.9 * clients))
    found = degree(clients, terms)
    missing = terms.of(clients)[0] + clients - terms.floor
    assert missing < found.neighbours == expected
    # Neither do all who are corrupt open a secret, wherever they stand.
    assert found.threshold > terms.of(clients)[0]
    made = ring(range(clients), found.neighbours, b"seed")
    graph = networkx.Graph([(a, b) for a in range(clients) for b in made.near(a)])
    assert networkx.is_connected(graph.subgraph(_without(made.order, missing, (0, clients // 2))))
    # As many as neighbours, on both sides of a group, would cut it out.
    cut = graph.subgraph(_without(made.order, found.neighbours, (0, clients // 2)))
    assert not networkx.is_connected(cut)


@pytest.mark.parametrize("clients", [7, 8, 9])
def test_no_choice_of_the_missing_cuts_a_ring_that_holds_together(clients: int) -> None:
    names = range(clients)
    for neighbours in range(2, clients - 1, 2):
        made = ring(names, neighbours, b"seed")
        graph = networkx.Graph([(a, b) for a in names for b in made.near(a)])
        for missing in range(clients - 1):
            whole = all(networkx.is_connected(graph.subgraph(set(names) - set(gone)))
                        for gone in combinations(names, missing))  # fmt: skip
            for corrupt in range((clients + 1) % 2, missing + 1, 2):
                signers, floor = (clients + corrupt + 1) // 2, clients - missing + corrupt
                held = holds_together(neighbours, signers, floor)
                assert held == whole or clients - missing < 3


def _without(order: Sequence[int], missing: int, places: tuple[int, int]) -> set[int]:
    """Whom a server leaves that says of neighbours at two places that they stopped."""
    half = missing // 2
    gone = [order[place + step] for place in places for step in range(half)]
    return set(order) - set(gone)


def test_small_cohorts_mask_with_everyone() -> None:
    for clients in range(5, 50):
        found = degree(clients, Terms(0.1, 0.1))
        corrupt, dropping = math.ceil(clients * 0.1 - 1e-9), math.ceil(clients * 0.1 - 1e-9)
        assert found.neighbours == clients - 1
        # Any two sets of so many have more in common than are corrupt, and no fewer would do.
        assert 2 * found.threshold - clients > corrupt >= 2 * (found.threshold - 1) - clients
        assert found.signers == found.threshold
        assert clients - dropping >= found.threshold
    assert degree(200, Terms(0.2, 0.2, sparse_from=201)).neighbours == 199
    assert degree(5, Terms(0.1, 0.1, sparse_from=2)).neighbours == 4


def test_more_corrupt_clients_need_a_higher_threshold() -> None:
    assert degree(10, Terms(0.6, 0.0)).threshold == 9
    assert degree(10, Terms(0.6, 0.0)).signers == 9


def test_cohorts_that_cannot_keep_the_promise_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs a cohort of 5, and 3 clients to the end; of 4 0"):
        degree(4, Terms(0.0, 0.0))
    with pytest.raises(ConfigError, match="22 clients to the end; of 30 12 may stop"):
        degree(30, Terms(0.4, 0.4))
    with pytest.raises(ConfigError, match="3 clients to the end; of 3 1 may stop"):
        degree(3, Terms(0.1, 0.1, floor=2))
    with pytest.raises(ConfigError, match="of 5 clients 1 may stop before the end"):
        check_spare(5, Terms())
    for clients, terms in ((6, Terms()), (5, Terms(dropping=0.0)), (5, Terms(floor=4))):
        check_spare(clients, terms)
    for clients in range(6, 60):
        found = degree(clients, Terms())
        check_spare(clients, Terms())
        assert clients - math.ceil(clients / 10) >= max(5, found.threshold, found.signers)
    for wrong in ({"corrupt": 1.0}, {"dropping": -0.1}, {"floor": 1}, {"corrupt": math.nan}):
        with pytest.raises(ConfigError, match="give shares from 0 to below 1"):
            Terms(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("members", "neighbours"), [(9, 4), (20, 6), (51, 12)])
def test_the_ring_is_a_harary_graph(members: int, neighbours: int) -> None:
    names = [3 * number for number in range(members)]
    made = ring(names, neighbours, b"seed")
    graph = networkx.Graph([(a, b) for a in names for b in made.near(a)])
    assert sorted(graph) == names
    assert {count for _, count in graph.degree()} == {neighbours}
    assert networkx.node_connectivity(graph) == neighbours
    for member in names:
        assert list(made.near(member)) == sorted(graph[member])
        assert all(member in made.near(other) for other in made.near(member))


def test_a_ring_of_fewer_joins_all_of_them() -> None:
    for count in (1, 2, 5, 6, 7):
        made = ring(range(count), 6, b"seed")
        for member in range(count):
            assert made.near(member) == tuple(each for each in range(count) if each != member)


def test_the_order_is_everyones_same_and_any_order_as_likely() -> None:
    assert ring([1, 2, 3, 9], 2, b"a") == ring([9, 3, 2, 1], 2, b"a")
    draws = 3000
    orders = Counter(ring(range(4), 2, number.to_bytes(4, "big")).order for number in range(draws))
    assert len(orders) == 24
    assert chisquare(list(orders.values())).pvalue > 1e-4
