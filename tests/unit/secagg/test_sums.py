"""The sum is exact whoever stops, and when; or it stays closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atoll.errors import ProtocolError, QuorumError
from atoll.secagg import Channel, Configuration, Moment, Step, secure_sum
from atoll.secagg.client import open_sum
from atoll.secagg.messages import Kind, write_each, write_one
from atoll.secagg.server import close, finish, gather, route, witness
from tests.support.sums import ROOT, Cohort, cohort, configured, vector

Words = Mapping[int, NDArray[np.int32]]


def _subsets(of: Iterable[int]) -> Iterator[tuple[int, ...]]:
    members = tuple(of)
    return chain.from_iterable(combinations(members, size) for size in range(len(members) + 1))


def _tried(people: Cohort, chosen: tuple[int, ...], step: Callable[..., Any], *given: Any) -> Any:
    """What a step of the server gives; with too few clients it must refuse, and gives nothing."""
    if len(chosen) >= people.configuration.least:
        return step(*given)
    with pytest.raises(QuorumError):
        step(*given)
    return None


def _named(people: Cohort, kind: Kind, contents: Mapping[int, Any]) -> dict[str, bytes]:
    write = write_each if kind in (Kind.SHARES, Kind.OPENING) else write_one
    names = people.configuration.cohort
    return {names[at]: write(kind, people.configuration, body) for at, body in contents.items()}


def _every_masking(people: Cohort, words: Words) -> Iterator[tuple[Any, ...]]:
    """Every way in which clients advertise and share: the server, and what the sharing sent."""
    states, adverts = people.advertised()
    told = {at: advert.to_bytes() for at, advert in adverts.items()}
    for some in _subsets(states):
        messages = _named(people, Kind.ADVERT, {at: told[at] for at in some})
        begun = _tried(people, some, gather, people.configuration, ROOT, people.verify, messages)
        if begun is None:
            continue
        shared, sealed = people.shared(states, {at: adverts[at] for at in some})
        for sharing in _subsets(some):
            sent = {at: sealed[at] for at in sharing}
            routed = _tried(people, sharing, route, begun[0], _named(people, Kind.SHARES, sent))
            if routed is not None:
                yield routed[0], *people.masked(shared, sent, words)


def _every_closing(people: Cohort, masking: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Every way in which some of those mask: the server, and the shares that each would open."""
    for state, states, masked in masking:
        for alive in _subsets(states):
            summed = people.absorbed(state, {at: masked[at] for at in alive})
            if _tried(people, alive, close, summed) is None:
                continue
            signed, signatures = people.signed(states, summed.survivors)
            for signing in _subsets(alive):
                some = {at: signatures[at] for at in signing}
                seen = _tried(
                    people, signing, witness, summed, _named(people, Kind.SIGNATURE, some)
                )
                if seen is None:
                    continue
                first = {at: some[at] for at in signing[: people.configuration.signers]}
                yield summed, {at: open_sum(signed[at], first, people.verify)[1] for at in signing}


def _opened_in_every_way(clients: int) -> int:
    people = cohort(configured(clients, sizes=(2, 1)))
    words = {at: vector(people.configuration, at) for at in range(clients)}
    count = 0
    for summed, openings in _every_closing(people, _every_masking(people, words)):
        expected = sum(words[at].astype(np.int64) for at in summed.alive)
        for opening in _subsets(openings):
            some = _named(people, Kind.OPENING, {at: openings[at] for at in opening})
            found = _tried(people, opening, finish, summed, some)
            if found is None:
                continue
            got = np.concatenate([found[0].integers[name] for name in "ab"])
            np.testing.assert_array_equal(got, expected)
            assert found[0].survivors == tuple(
                people.configuration.cohort[at] for at in summed.alive
            )
            count += 1
    return count


def _ways(clients: int, least: int) -> int:
    """Chains of five subsets, each of the one before, of which the last has `least` or more."""
    sizes = {clients: 1}
    for _ in range(5):
        following: dict[int, int] = {}
        for size, ways in sizes.items():
            for some in _subsets(range(size)):
                following[len(some)] = following.get(len(some), 0) + ways
        sizes = following
    return sum(ways for size, ways in sizes.items() if size >= least)


@pytest.mark.parametrize(
    "clients", [2, 3, 4, 5, *(pytest.param(n, marks=pytest.mark.long) for n in (6, 7, 8))]
)
def test_every_way_of_stopping_gives_the_exact_sum_or_none(clients: int) -> None:
    assert _opened_in_every_way(clients) == _ways(clients, clients // 2 + 1)


def _hundred() -> Configuration:
    """Each with 40 neighbours; a step is 1, so that whole numbers are not rounded."""
    names = tuple(f"client-{number:03}" for number in range(100))
    channels = tuple(Channel(name, size, 2.0**24 - 1, 25) for name, size in (("a", 40), ("b", 1)))
    return Configuration(Moment("run", 1, 1), names, 40, 21, 51, 5, channels)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 200))]
)
def test_a_hundred_clients_stop_at_random(seed: int) -> None:
    configuration, generator = _hundred(), np.random.default_rng(seed)
    names, top = configuration.cohort, 2**24 - 1
    gone = generator.choice(names, int(generator.integers(0, 30)), replace=False).tolist()
    stops = {name: Step(int(generator.integers(1, 6))) for name in gone}
    values = {
        name: {key: generator.integers(-top, top + 1, size).astype(np.float64)
               for key, size in (("a", 40), ("b", 1))}
        for name in names
    }  # fmt: skip
    try:
        total = secure_sum(configuration, values.__getitem__, stops)
    except (QuorumError, ProtocolError):
        # With 19 gone, even all of one client's neighbours, 21 of 40 are there.
        assert len(gone) > 19
        return
    summed = [name for name in names if stops.get(name, 6) > Step.MASKED]
    assert list(total.survivors) == summed
    for key in ("a", "b"):
        expected = np.sum([values[name][key] for name in summed], axis=0)
        np.testing.assert_array_equal(total.integers[key], expected)


@given(
    st.integers(5, 9), st.integers(1, 30), st.floats(1e-6, 1e6), st.integers(0, 2**32), st.data()
)
@settings(deadline=None, max_examples=15)
def test_the_sum_is_within_a_step_a_client(
    clients: int, size: int, bound: float, seed: int, data: st.DataObject
) -> None:
    names = [f"n{number}" for number in range(clients)]
    channel = Channel.fitted("a", size, bound, clients)
    least = clients // 2 + 1
    configuration = Configuration(
        Moment("r", 1, 1), tuple(names), clients - 1, least, least, 2, (channel,)
    )
    generator = np.random.default_rng(seed)
    values = {name: {"a": generator.uniform(-bound, bound, size)} for name in names}
    gone = data.draw(st.lists(st.sampled_from(names), max_size=(clients - 1) // 2, unique=True))
    steps = {name: Step(data.draw(st.integers(1, 5))) for name in gone}
    total = secure_sum(configuration, values.__getitem__, steps)
    exact = np.sum([values[name]["a"] for name in total.survivors], axis=0)
    assert np.all(np.abs(total.values("a") - exact) <= len(total.survivors) * channel.step)
    assert set(total.survivors) == {n for n in names if steps.get(n, 6) > Step.MASKED}


def test_ranges_filled_to_the_end_do_not_overflow() -> None:
    for clients in (2, 7, 64):
        names = tuple(sorted(f"n{number}" for number in range(clients)))
        channel = Channel.fitted("a", 3, 1.0, clients)
        least = clients // 2 + 1
        configuration = Configuration(
            Moment("r", 1, 1), names, clients - 1, least, least, 2, (channel,)
        )
        total = secure_sum(configuration, lambda _: {"a": np.array([9.0, -9.0, 0.0])})
        assert total.integers["a"].tolist() == [clients * channel.top, -clients * channel.top, 0]


def test_a_weighted_mean_needs_no_count_in_clear() -> None:
    clients = 6
    names = tuple(f"n{number}" for number in range(clients))
    channels = (
        Channel.fitted("update", 4, 500.0, clients),
        Channel.fitted("weight", 1, 500.0, clients),
    )
    configuration = Configuration(Moment("r", 1, 1), names, 5, 4, 4, 5, channels)
    generator = np.random.default_rng(0)
    rows = {name: float(generator.integers(1, 500)) for name in names}
    updates = {name: generator.uniform(-1, 1, 4) for name in names}
    total = secure_sum(
        configuration,
        lambda name: {"update": rows[name] * updates[name], "weight": np.array([rows[name]])},
    )
    mean = total.values("update") / total.values("weight")
    expected = sum(rows[n] * updates[n] for n in names) / sum(rows.values())
    np.testing.assert_allclose(mean, expected, atol=1e-5)
