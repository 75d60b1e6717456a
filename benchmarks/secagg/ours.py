"""Atoll's secure sum in one process, each client's and the server's steps timed apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from atoll.secagg import Configuration, Held, Identity, Member, roster_verifier
from atoll.secagg.server import absorb, close, finish, gather, route, witness
from benchmarks.secagg.peer import Measured

__all__ = ["ours"]

Result = TypeVar("Result")
ROOT = bytes(32)


class Clock:
    """CPU seconds by who spent them."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def of(self, who: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.spent[who] = self.spent.get(who, 0.0) + time.process_time() - start


def ours(
    configuration: Configuration,
    vector: NDArray[np.float32],
    dropped: int,
    looked_at: int | None = None,
) -> Measured:
    """One exchange whose first clients stop before they mask.

    looked_at: how many of the last clients are timed, and check every signature themselves; the
    others' checks are made once for all of them. All of them unless it is given.
    """
    names = configuration.cohort
    identities = {name: Identity.new() for name in names}
    roster = {name: identity.public for name, identity in identities.items()}
    once = lru_cache(maxsize=None)(roster_verifier(roster))
    alone = set(names if looked_at is None else names[-looked_at:])
    members = {
        name: Member(name, identities[name].sign,
                     roster_verifier(roster) if name in alone else once, Held())
        for name in names
    }  # fmt: skip
    clock, sent = Clock(), dict.fromkeys(names, 0)

    def asked(step: Callable[[str], bytes], of: Mapping[str, object]) -> dict[str, bytes]:
        answers = {}
        for name in of:
            with clock.of(name):
                answers[name] = step(name)
            sent[name] += len(answers[name])
        return answers

    adverts = asked(lambda name: members[name].advert(configuration), members)
    with clock.of("server"):
        state, everyone, _ = gather(configuration, ROOT, roster_verifier(roster), adverts)
    shares = asked(lambda name: members[name].shares(configuration, everyone), members)
    with clock.of("server"):
        state, inboxes, _ = route(state, shares)

    def masked(name: str) -> bytes:
        words = members[name].quantised(configuration, {"update": vector}).words
        return members[name].masked(configuration, inboxes[name], ROOT, words)

    alive = dict.fromkeys(names[dropped:])
    for name in alive:
        message = asked(masked, {name: None})[name]
        with clock.of("server"):
            state = absorb(state, name, message)
    with clock.of("server"):
        survivors = close(state)
    signatures = asked(lambda name: members[name].signature(configuration, survivors), alive)
    with clock.of("server"):
        confirmed, _ = witness(state, signatures)
    openings = asked(lambda name: members[name].opening(configuration, confirmed), alive)
    with clock.of("server"):
        total, _ = finish(state, openings)
        mean = total.values("update") / len(alive)
    error = float(np.abs(mean - vector).max())
    seen = [name for name in alive if name in alone]
    upload = sum(sent[name] for name in seen) / len(seen)
    return Measured([clock.spent[name] for name in seen], clock.spent["server"], upload, error)
