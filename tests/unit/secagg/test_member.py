"""A client between two steps: on its own disk, killed at any of them, one vector to a mask."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import ProtocolError, QuorumError
from atoll.secagg import (
    Configuration,
    Folder,
    Held,
    Identity,
    Member,
    Moment,
    Step,
    Store,
    roster_verifier,
)
from atoll.secagg.gathered import ServerState
from atoll.secagg.server import absorb, close, finish, gather, route, witness
from atoll.secagg.state import ClientState
from tests.support.sums import ROOT, configured, vector

CONFIGURATION = configured(5)
NAMES = CONFIGURATION.cohort
WORDS = {name: vector(CONFIGURATION, place) for place, name in enumerate(NAMES)}
IDENTITIES = {name: Identity.new() for name in NAMES}
VERIFY = roster_verifier({name: identity.public for name, identity in IDENTITIES.items()})


def _member(name: str, store: Store) -> Member:
    return Member(name, IDENTITIES[name].sign, VERIFY, store)


class Killed(Exception):
    """A process that ended."""


@dataclass
class Frail:
    """A folder whose process is killed around its n-th save: before it is on the disk, or after."""

    inner: Folder
    at: int
    after: bool
    saves: int = 0

    def load(self, moment: Moment) -> ClientState | None:
        return self.inner.load(moment)

    def closed(self, run: str) -> int:
        return self.inner.closed(run)

    def close(self, run: str, exchange: int) -> None:
        self.inner.close(run, exchange)

    def save(self, state: ClientState) -> None:
        self.saves += 1
        if self.saves == self.at and not self.after:
            raise Killed
        self.inner.save(state)
        if self.saves == self.at and self.after:
            raise Killed


@dataclass
class Exchange:
    """One exchange in which one client is killed, and the server before each of its steps."""

    configuration: Configuration
    stores: Mapping[str, Store]
    said: dict[str, dict[str, bytes]] = field(default_factory=dict)
    vectors: Counter[str] = field(default_factory=Counter)

    def ask(self, step: str, among: Mapping[str, object], call: Callable[..., bytes]) -> None:
        """Every client; one that is killed starts again and is asked once more."""
        said = self.said.setdefault(step, {})
        for name in among:
            for _ in range(2):
                try:
                    said[name] = call(_member(name, self.stores[name]), name)
                    self.vectors[name] += step == "masked"
                    break
                except Killed:
                    continue
                except ProtocolError:
                    break

    def run(self) -> tuple[str, ...]:
        made = self.configuration
        self.ask("advert", dict.fromkeys(NAMES), lambda m, _: m.advert(made))
        state, everyone, _ = gather(made, ROOT, VERIFY, self.said["advert"])
        self.ask("shares", self.said["advert"], lambda m, _: m.shares(made, everyone))
        state, inboxes, _ = route(state, self.said["shares"])
        self.ask("masked", inboxes, lambda m, n: m.masked(made, inboxes[n], ROOT, WORDS[n].copy()))
        return self.close(inboxes)

    def again(self) -> tuple[ServerState, bytes]:
        """The server starts again from what it was sent."""
        state, _, _ = gather(self.configuration, ROOT, VERIFY, self.said["advert"])
        state, _, _ = route(state, self.said["shares"])
        for name, raw in self.said["masked"].items():
            state = absorb(state, name, raw)
        return state, close(state)

    def close(self, inboxes: Mapping[str, bytes]) -> tuple[str, ...]:
        made = self.configuration
        _, survivors = self.again()
        self.ask("signature", self.said["masked"], lambda m, _: m.signature(made, survivors))
        state, same = self.again()
        assert same == survivors
        confirmed, _ = witness(state, self.said["signature"])
        self.ask("opening", self.said["signature"], lambda m, _: m.opening(made, confirmed))
        state, _ = self.again()
        total, _ = finish(state, self.said["opening"])
        expected = sum(WORDS[name].astype(np.int64) for name in self.said["masked"])
        np.testing.assert_array_equal(total.integers["a"], expected)
        return total.survivors


def _states(folder: Path) -> list[Path]:
    return list(folder.rglob("*.state"))


REPEATS = [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 20))]


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", Step)
def test_a_client_that_is_killed_takes_part_or_is_gone(
    tmp_path: Path, step: Step, after: bool, repeat: int
) -> None:
    victim = NAMES[(step + repeat) % 5]
    folders = {name: Folder(tmp_path / name) for name in NAMES}
    stores = {**folders, victim: Frail(folders[victim], int(step), after)}
    exchange = Exchange(CONFIGURATION, stores)
    survivors = exchange.run()
    assert set(NAMES) - {victim} <= set(survivors)
    # Whatever was asked again, a key has masked one vector.
    assert max(exchange.vectors.values()) == 1
    lost = after and step == Step.MASKED
    assert (victim in survivors) == (not lost)
    for name in NAMES:
        left = _states(tmp_path / name)
        assert len(left) == (name == victim and lost)
    for path in _states(tmp_path):
        _member(victim, folders[victim]).give_up("run", 7)
        assert not path.exists()
    other = next(name for name in NAMES if name != victim)
    with pytest.raises(ProtocolError, match="has opened exchange 7 of run, or a later one"):
        _member(other, folders[other]).advert(CONFIGURATION)


def test_an_exchange_that_too_many_leave_ends_without_a_sum(tmp_path: Path) -> None:
    stores = {name: Folder(tmp_path / name) for name in NAMES}
    for name in NAMES[:3]:
        stores[name] = Frail(stores[name], 3, after=True)  # type: ignore[assignment]
    with pytest.raises(QuorumError, match="2 of 5 clients sent a masked vector"):
        Exchange(CONFIGURATION, stores).run()
    second = replace(CONFIGURATION, moment=replace(CONFIGURATION.moment, attempt=1))
    exchange = Exchange(second, {name: Folder(tmp_path / name) for name in NAMES})
    assert exchange.run() == NAMES
    assert not _states(tmp_path)


def test_the_state_is_the_owners_alone_and_comes_back_as_it_was(tmp_path: Path) -> None:
    stores = {name: Folder(tmp_path / name) for name in NAMES}
    seen: list[Step] = []

    @dataclass
    class Looked:
        inner: Folder

        def load(self, moment: Moment) -> ClientState | None:
            return self.inner.load(moment)

        def closed(self, run: str) -> int:
            return self.inner.closed(run)

        def close(self, run: str, exchange: int) -> None:
            self.inner.close(run, exchange)

        def save(self, state: ClientState) -> None:
            self.inner.save(state)
            seen.append(state.step)
            for path in (tmp_path / state.name).rglob("*"):
                assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o600
            if state.step == Step.OPENED:
                assert self.inner.load(state.configuration.moment) is None
                return
            assert self.inner.load(state.configuration.moment) == state
            raw = state.to_bytes()
            assert ClientState.from_bytes(raw) == state
            assert repr(state).count("secret") == 0
            for cut in (
                raw[:-1],
                raw[1:],
                raw[:40],
                b"",
                raw[:-33] + bytes([raw[-33] ^ 1]) + raw[-32:],
            ):
                with pytest.raises(ProtocolError):
                    ClientState.from_bytes(cut)

    Exchange(CONFIGURATION, {name: Looked(store) for name, store in stores.items()}).run()
    assert Counter(seen) == dict.fromkeys(Step, 5)
    mark = next(tmp_path.rglob("opened"))
    mark.write_text("what")
    with pytest.raises(ProtocolError, match="which exchanges this client has opened is not known"):
        _member(mark.parts[-3], Folder(mark.parents[1])).advert(CONFIGURATION)


def _at(exchange: int, attempt: int = 0) -> Configuration:
    return replace(CONFIGURATION, moment=Moment("run", 3, exchange, attempt))


@pytest.mark.parametrize("kind", ["files", "memory"])
def test_an_advert_is_repeated_and_an_exchange_is_not(tmp_path: Path, kind: str) -> None:
    store: Store = Folder(tmp_path) if kind == "files" else Held()
    member = _member(NAMES[0], store)
    first = member.advert(_at(7))
    assert _member(NAMES[0], store).advert(_at(7)) == first
    with pytest.raises(ProtocolError, match="began exchange 7 with another configuration"):
        member.advert(replace(_at(7), floor=3))
    with pytest.raises(ProtocolError, match="has no keys for exchange 8"):
        member.shares(_at(8), first)
    assert member.advert(_at(7, attempt=1))[40:] != first[40:]
    for refused in (member.advert, lambda made: member.shares(made, b"")):
        with pytest.raises(ProtocolError, match="has erased its keys of attempt 0"):
            refused(_at(7))
    with pytest.raises(ProtocolError, match="has no keys for exchange 7, attempt 2"):
        member.shares(_at(7, attempt=2), b"")
    fewer = configured(4)
    fewer = replace(fewer, moment=Moment("run", 3, 7, 2))
    with pytest.raises(ProtocolError, match="is of other clients"):
        member.advert(fewer)
    member.give_up("run", 6)
    assert member.advert(_at(7, attempt=1))[40:] != first[40:]
    state = store.load(Moment("run", 3, 7))
    assert state is not None
    store.save(state.erased())
    for exchange in (6, 7):
        with pytest.raises(ProtocolError, match=f"has opened exchange {exchange} of run"):
            member.advert(_at(exchange))
    assert store.closed("run") == 7
    assert member.advert(_at(8))
    member.give_up("run", 8)
    with pytest.raises(ProtocolError, match="has opened exchange 8 of run, or a later one, or has"):
        member.advert(_at(8, attempt=1))
    other = replace(CONFIGURATION, moment=Moment("another run", 1, 1))
    assert member.advert(other)


def test_a_state_that_outlived_its_exchange_is_not_gone_on_with(tmp_path: Path) -> None:
    """Killed after it is written that the exchange was opened, before its state is taken away."""
    member, store = _member(NAMES[0], Folder(tmp_path)), Folder(tmp_path)
    member.advert(_at(7))
    path = _states(tmp_path)[0]
    raw, state = path.read_bytes(), store.load(_at(7).moment)
    assert state is not None
    store.save(state.erased())
    path.write_bytes(raw)
    assert store.load(_at(7).moment) is None
    with pytest.raises(ProtocolError, match="has no keys for exchange 7"):
        member.shares(_at(7), b"")
    member.advert(_at(8))
    assert not path.exists()


def test_keys_of_exchanges_that_were_never_opened_do_not_pile_up(tmp_path: Path) -> None:
    member = _member(NAMES[0], Folder(tmp_path))
    for exchange in range(9, 30):
        member.advert(_at(exchange))
    assert len(_states(tmp_path)) == 2
    member.advert(_at(28))
    with pytest.raises(ProtocolError, match="has no keys for exchange 27"):
        member.shares(_at(27), b"")


def test_keys_of_other_runs_are_left_behind(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    member = _member(NAMES[0], store)
    for run in ("run", "another", "third"):
        member.advert(replace(CONFIGURATION, moment=Moment(run, 3, 7)))
    store.leave("another")
    assert store.load(Moment("another", 3, 7)) is not None
    assert len(_states(tmp_path)) == 1
    assert member.advert(_at(8))


def test_no_key_is_used_in_two_exchanges() -> None:
    member = _member(NAMES[0], Held())
    keys = set()
    for exchange in range(1000):
        advert = member.advert(_at(exchange))[40:]
        keys |= {advert[:32], advert[32:64], advert[64:96]}
    assert len(keys) == 3000


def test_vectors_are_rounded_by_coins_of_the_exchange() -> None:
    member = _member(NAMES[0], Held())
    values = {"a": np.array([0.1, -0.2, 2.0])}
    words = []
    for exchange in (7, 8):
        member.advert(_at(exchange))
        found = member.quantised(_at(exchange), values)
        assert found.clamped == {"a": 1}
        again = member.quantised(_at(exchange), values)
        np.testing.assert_array_equal(again.words, found.words)
        words.append(found.words)
    top = CONFIGURATION.channels[0].top
    assert all(np.abs(each - [0.1 * top, -0.2 * top, top]).max() < 1 for each in words)


def test_no_two_vectors_are_rounded_by_the_same_coins() -> None:
    """What rounding adds would not average out over clients, or over rounds."""
    large = [configured(5, sizes=(4_000,), exchange=exchange) for exchange in (7, 8)]
    # Half way between two steps, so that each value goes up by a coin alone.
    half = {"a": np.full(4_000, 0.5 * large[0].channels[0].step)}
    found = []
    for name, own in ((NAMES[0], large[0]), (NAMES[0], large[1]), (NAMES[1], large[0])):
        member = _member(name, Held())
        member.advert(own)
        found.append(member.quantised(own, half).words)
    again = _member(NAMES[0], Held())
    again.advert(large[0])
    found.append(again.quantised(large[0], half).words)
    agreeing = [float((one == other).mean()) for one, other in combinations(found, 2)]
    # Six standard deviations around what chance gives.
    assert max(abs(share - 0.5) for share in agreeing) < 6 * 0.5 / np.sqrt(4_000)
