"""Sites and the server of secure sums die at each step: a round ends, and no key serves twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import pytest
import torch

from atoll.aggregators import grouped
from atoll.config import Call
from atoll.core import Aggregator, Algorithm, Position, Report
from atoll.protection.groups import Apart, groups_of
from atoll.protection.outside import Outside
from atoll.protection.secure import Party, Secure, masks
from atoll.protection.speaking import SPEAKING, speaking
from atoll.protection.summed import Summed
from atoll.runtimes import gathering, mailbox, underway
from atoll.runtimes.gathering import Closing
from atoll.secagg import Folder, Identity, Member, Moment, Step, Terms, most_bits, roster_verifier
from atoll.secagg.state import ClientState
from atoll.stages import by_examples, uniform
from tests.support.wire import RUN, Killed, Peer, Wire, rounds, toy
from tests.unit.runtimes.test_late_answers import averaged, fitted

NAMES = ("ada", "bob", "cy", "dee")
RANGES = {"update": 8.0, "weight": 64.0, "examples": 64.0}
IDENTITIES = {name: Identity.new() for name in NAMES}
VERIFY = roster_verifier({name: one.public for name, one in IDENTITIES.items()})
STEPS = (Step.ADVERTISED, Step.SHARED, Step.MASKED, Step.SIGNED, Step.OPENED)
DEATHS = ("before it is kept", "after it is kept", "server")


@dataclass
class Fates:
    """Who dies next, and what every client did that cannot be taken back."""

    wire: Wire
    folder: Path
    due: tuple[Step, str, str] | None = None
    secrets: dict[tuple[str, Moment], set[bytes]] = field(default_factory=dict)
    steps: Counter[tuple[str, Moment, Step]] = field(default_factory=Counter)

    def peer(self, name: str) -> Peer:
        """A fresh process of a site, with what is on its disk."""
        store = Mortal(self, name)
        return Peer(self.folder / name, name, algorithms(store.member))

    def strikes(self, name: str, step: Step, how: str) -> None:
        """The end of a client or of the server, if this is when it is due."""
        if self.due is None or self.due != (step, name, how):
            return
        self.due = None
        if how == "server":
            self.wire.kill_server = True
            return
        self.wire.sites[name].kill()  # type: ignore[attr-defined]
        self.wire.sites[name] = self.peer(name)
        raise Killed


class Mortal(Folder):
    """A client's states on its disk; here it may die."""

    def __init__(self, fates: Fates, name: str) -> None:
        super().__init__(fates.folder / name / "secagg")
        self._fates, self._name = fates, name

    def member(self, name: str) -> Member:
        return Member(name, IDENTITIES[name].sign, VERIFY, self)

    def save(self, state: ClientState) -> None:
        at, step = state.configuration.moment, state.step
        self._fates.strikes(self._name, step, "before it is kept")
        super().save(state)
        if step == Step.ADVERTISED:
            self._fates.secrets.setdefault((self._name, at), set()).add(state.secret)
        self._fates.steps[self._name, at, step] += 1
        self._fates.strikes(self._name, step, "server")
        self._fates.strikes(self._name, step, "after it is kept")


def algorithms(
    member: Callable[[str], Member], grouping: Aggregator | None = None
) -> dict[str, Algorithm]:
    """grouping: a rule over secure sums of groups, of clients that count the same."""
    plain = toy()
    like = plain.client.template(plain.server.broadcast({"adapter": {"w": torch.zeros(8)}}, ""))
    summed = Summed(like, RANGES, undivided=False, most=len(NAMES))
    secure = Secure(summed, Terms(corrupt=0, dropping=0.25, floor=2))
    if grouping is not None and grouping.rule is not None:
        terms = Terms(corrupt=0, dropping=0, floor=2)
        secure = Secure(summed, terms, apart=Apart(grouping.group, grouping.rule))
    party = Party(secure, member, Outside(print, 1))
    stages = (by_examples() if grouping is None else uniform(), masks(secure, party, VERIFY))
    trained = replace(plain, stages=stages, aggregator=grouping or plain.aggregator)
    return {"fit": trained, SPEAKING: speaking(party.says)}


def _server() -> Mapping[str, Algorithm]:
    nobody: dict[str, Member] = {}
    return algorithms(nobody.__getitem__)


def _one_round(
    fates: Fates, monkeypatch: pytest.MonkeyPatch, start: Position, quorum: int
) -> Report:
    """The next round of a server that is started again when it dies."""
    own, number, told = dict(_server()), start.round + 1, list[str]()
    while True:
        with rounds(fates.wire, fates.folder / "server", monkeypatch, number=number, told=told,
                    closing=Closing(quorum, grace=1.0, ends=True), start=start,
                    algorithm=own["fit"], beside={SPEAKING: own[SPEAKING]}) as reports:  # fmt: skip
            try:
                return next(reports)
            except Killed:
                continue


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.long)])
def test_whoever_dies_at_whichever_step_a_round_ends_and_no_key_serves_twice(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, seconds in (
        (gathering, "STEP", 0.05), (underway, "LOST", 0.3), (mailbox, "PATIENCE", 0.05),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, seconds)
    draw, again = random.Random(11), 0
    plan = list(product(STEPS, DEATHS)) * times
    draw.shuffle(plan)
    fates = Fates(Wire({}), tmp_path)
    fates.wire.sites = {name: fates.peer(name) for name in NAMES}
    position = Position({"adapter": {"w": torch.zeros(8)}}, round=0)
    for step, how in plan:
        quorum = 4 if how == "after it is kept" else 3
        fates.due = (step, draw.choice(NAMES), how)
        before = position.server["adapter"]["w"]
        report = _one_round(fates, monkeypatch, position, quorum)
        position = report.position
        assert fates.due is None, f"nobody died {how} {step}"
        (exchange,) = report.exchanges
        there = sorted(exchange.folded)
        assert len(there) >= quorum
        again += len(exchange.closed)
        want = averaged(before, [(u, float(n)) for u, n in (fitted(c, before) for c in there)])
        assert torch.allclose(position.server["adapter"]["w"], want, atol=_tolerance(there))
    assert position.round == len(plan)
    # Who dies with its vector masked and not sent masks no other one in that attempt.
    assert again > 0
    _no_key_twice(fates)
    _erased(fates, len(plan))


def test_groups_are_summed_over_letters_and_one_that_lacks_a_client_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "STEP", 0.05)
    grouping = grouped(rule=Call("median"), size=2)
    stores = {name: Folder(tmp_path / name / "secagg") for name in NAMES}
    members = {name: Member(name, IDENTITIES[name].sign, VERIFY, stores[name]) for name in NAMES}
    own = algorithms(members.__getitem__, grouping)
    wire = Wire({name: Peer(tmp_path / name, name, own) for name in NAMES})
    with rounds(wire, tmp_path / "server", monkeypatch, number=2, told=[],
                closing=Closing(quorum=2, grace=1.0, ends=True), algorithm=own["fit"],
                beside={SPEAKING: own[SPEAKING]}) as reports:  # fmt: skip
        first = next(reports)
        before = first.position.server["adapter"]["w"]
        # Two groups of two: the median of their means is the mean of all.
        want = torch.stack([fitted(name, torch.zeros(8))[0] for name in NAMES]).mean(0)
        assert torch.allclose(before, want, atol=_tolerance(list(NAMES)) * 60)
        gone, *others = next(group for group in groups_of(RUN, 2, NAMES, 2) if "cy" in group)
        wire.absent.add("cy")
        second = next(reports)
    left = [name for name in NAMES if name not in (gone, *others)]
    assert set(second.exchanges[0].folded) == set(left)
    want = before + torch.stack([fitted(name, before)[0] for name in left]).mean(0)
    found = second.position.server["adapter"]["w"]
    assert torch.allclose(found, want, atol=_tolerance(left) * 60)


def _tolerance(clients: list[str]) -> float:
    """Weighed updates are summed on a grid of powers of two, and divided by all rows."""
    step = RANGES["update"] * RANGES["weight"] / 2 ** (most_bits(len(NAMES)) - 2)
    return len(clients) * step / (60 * len(clients)) + 1e-6


def _no_key_twice(fates: Fates) -> None:
    known = [secret for each in fates.secrets.values() for secret in each]
    assert len(known) == len(set(known)) == len(fates.secrets)
    masked = {key: n for key, n in fates.steps.items() if key[2] == Step.MASKED}
    assert set(masked.values()) == {1}
    opened = Counter((name, at.exchange) for name, at, step in fates.steps if step == Step.OPENED)
    assert set(opened.values()) == {1}


def _erased(fates: Fates, last: int) -> None:
    """Of exchanges that a client has opened nothing is left; of others, the last one."""
    for name in NAMES:
        store = Mortal(fates, name)
        left = list((fates.folder / name / "secagg").rglob("*.state"))
        assert all(int(path.stem) > store.closed(RUN) for path in left)
        assert len(left) <= 1
        assert store.closed(RUN) >= last - 4
