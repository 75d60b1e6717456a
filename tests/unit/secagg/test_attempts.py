"""Two attempts of one exchange: whatever a server asks whom, one of them is opened at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import ProtocolError, QuorumError
from atoll.secagg import (
    Channel,
    Configuration,
    Held,
    Identity,
    Member,
    Moment,
    Terms,
    Total,
    agree,
    roster_verifier,
)
from atoll.secagg.gathered import ServerState
from atoll.secagg.keys import Verifier
from atoll.secagg.server import absorb, close, finish, gather, route, witness
from tests.support.sums import ROOT

STEPS = ("advert", "shares", "masked", "signature", "opening")


def _configured(clients: int, corrupt: int, attempt: int) -> Configuration:
    names = [f"c{number:02}" for number in range(clients)]
    channels = [Channel.fitted("a", 4, 1.0, clients)]
    terms = Terms(corrupt / clients, 0.0, floor=2)
    return agree(Moment("run", 1, 1, attempt), names, channels, terms)


def _sparse(attempt: int) -> Configuration:
    """Of 20, of whom two are corrupt; each masks with six."""
    return replace(_configured(20, 2, attempt), neighbours=6, threshold=5)


@dataclass
class Attempt:
    """One attempt at a server that breaks its rules: each step is asked of whom it likes."""

    made: Configuration
    members: Mapping[str, Member]
    verify: Verifier
    server: ServerState | None = None
    told: dict[str, bytes] = field(default_factory=dict)
    total: Total | None = None

    def ask(self, step: str, among: Iterable[str]) -> None:
        """A step; where too few answer, nothing is said of the next one."""
        said = {}
        for name in among:
            if step == "advert" or name in self.told:
                try:
                    said[name] = self._asked(step, name)
                except ProtocolError:
                    continue
        try:
            self.told = self._following(step, said)
        except (ProtocolError, QuorumError):
            self.told = {}

    def _asked(self, step: str, name: str) -> bytes:
        member, made = self.members[name], self.made
        if step == "advert":
            return member.advert(made)
        if step == "masked":
            words = member.quantised(made, {"a": _vector(name)}).words
            return member.masked(made, self.told[name], ROOT, words)
        asked: Callable[[Configuration, bytes], bytes] = getattr(member, step)
        return asked(made, self.told[name])

    def _following(self, step: str, said: Mapping[str, bytes]) -> dict[str, bytes]:
        if step == "advert":
            self.server, everyone, _ = gather(self.made, ROOT, self.verify, said)
            return dict.fromkeys(said, everyone)
        if not said:
            return {}
        assert self.server is not None, "it said what is answered"
        if step == "shares":
            self.server, inboxes, _ = route(self.server, said)
            return inboxes
        if step == "masked":
            for name, message in said.items():
                self.server = absorb(self.server, name, message)
            return dict.fromkeys(said, close(self.server))
        if step == "signature":
            return dict.fromkeys(self.told, witness(self.server, said)[0])
        self.total, _ = finish(self.server, said)
        return {}


def _vector(name: str) -> np.ndarray:
    return np.random.default_rng(int(name[1:])).uniform(-1, 1, 4)


def _attempts(owns: Sequence[Configuration], corrupt: int) -> list[Attempt]:
    """The first clients are corrupt: they have keys of their own in each attempt, and open all."""
    names = owns[0].cohort
    identities = {name: Identity.new() for name in names}
    verify = roster_verifier({name: one.public for name, one in identities.items()})

    def members(among: Sequence[str]) -> dict[str, Member]:
        return {name: Member(name, identities[name].sign, verify, Held()) for name in among}

    honest = members(names[corrupt:])
    return [Attempt(made, {**honest, **members(names[:corrupt])}, verify) for made in owns]


@pytest.mark.parametrize(
    ("clients", "corrupt"), [(5, 1), (7, 1), (9, 1), (15, 2), (20, 2), (49, 5)]
)
def test_two_attempts_side_by_side_are_not_both_opened(clients: int, corrupt: int) -> None:
    """The victim is in one of two sums, whose openers are two halves of the others."""
    owns = [_configured(clients, corrupt, attempt) for attempt in (0, 1)]
    first, second = _attempts(owns, corrupt)
    names = owns[0].cohort
    victim, honest = names[corrupt], names[corrupt:]
    for step in STEPS[:4]:
        first.ask(step, names)
        second.ask(step, names if step != "masked" else [n for n in names if n != victim])
    needed = owns[0].threshold - corrupt
    first.ask("opening", (*names[:corrupt], *honest[:needed]))
    second.ask("opening", (*names[:corrupt], *honest[needed:]))
    assert first.total is None or second.total is None


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("clients", "corrupt"), [(5, 1), (7, 1), (8, 3), (9, 1)])
def test_those_who_go_on_and_those_who_stay_do_not_both_open(
    clients: int, corrupt: int, signed: bool
) -> None:
    """However the honest are cut in two."""
    opened = set()
    for moving in range(clients - corrupt + 1):
        owns = [_configured(clients, corrupt, attempt) for attempt in (0, 1)]
        first, second = _attempts(owns, corrupt)
        names = owns[0].cohort
        here, gone = names[: clients - moving], (*names[:corrupt], *names[clients - moving :])
        for step in STEPS[: 4 if signed else 3]:
            first.ask(step, names)
        for step in STEPS:
            second.ask(step, gone)
        for step in STEPS[4 if signed else 3 :]:
            first.ask(step, here)
        opened.add((first.total is not None, second.total is not None))
    assert (True, True) not in opened
    assert {(True, False), (False, True)} <= opened


ASKED = st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 19), max_size=7)), max_size=12)


@given(ASKED, st.sampled_from(["full", "sparse"]))
@settings(deadline=None, max_examples=25)
def test_no_order_of_questions_opens_two_attempts(
    asked: list[tuple[bool, set[int]]], graph: str
) -> None:
    """asked: of which attempt, and who is left out; what is left of both follows."""
    owns = [_sparse(n) if graph == "sparse" else _configured(20, 2, n) for n in (0, 1)]
    attempts, turns = _attempts(owns, 2), [0, 0]
    names = owns[0].cohort
    for later, left_out in [*asked, *[(False, set[int]())] * 5, *[(True, set[int]())] * 5]:
        if turns[later] < 5:
            among = [name for at, name in enumerate(names) if at < 2 or at not in left_out]
            attempts[later].ask(STEPS[turns[later]], among)
            turns[later] += 1
    assert sum(one.total is not None for one in attempts) <= 1


def test_an_attempt_that_was_signed_is_given_up_where_all_mask_with_all_and_only_there() -> None:
    for made in (_configured(20, 2, 0), _sparse(0)):
        later = replace(made, moment=replace(made.moment, attempt=1))
        first, second = _attempts([made, later], 0)
        for step in STEPS[:4]:
            first.ask(step, made.cohort)
        if made.sparse:
            with pytest.raises(ProtocolError, match="it takes part in no other attempt"):
                second.members["c05"].advert(later)
            first.ask("opening", made.cohort)
        else:
            for step in STEPS:
                second.ask(step, made.cohort)
        total = first.total if made.sparse else second.total
        assert total is not None
        expected = np.sum([_vector(name) for name in made.cohort], axis=0)
        np.testing.assert_allclose(total.values("a"), expected, atol=1e-5)
