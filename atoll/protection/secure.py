"""Secure aggregation of a round: the server sees the sum of its clients' payloads, and none.

advert, shares   questions before the round: keys, and shares of what could be lost
inbox            rides on the round's own question; what comes back is masked
signature        who is summed, on which model, signed by each
opening          what takes the masks off the sum

Where a rule compares groups, each group of a cohort has a sum of its own; the questions are asked
of all groups together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from atoll.core import (
    Channel,
    Context,
    Payload,
    Request,
    Runtime,
    Sealed,
    Sealing,
    Stage,
    State,
    Task,
    Tree,
)
from atoll.core.answers import unasked
from atoll.errors import ConfigError, ProtocolError, QuorumError
from atoll.protection.beside import said_beside
from atoll.protection.exchange import Sums
from atoll.protection.groups import Apart, groups_of
from atoll.protection.outside import Outside
from atoll.protection.summed import MASKED, WORDS, Summed, root_of
from atoll.secagg import Configuration, Kind, Member, Moment, Terms, Total, agree
from atoll.secagg.keys import Verifier
from atoll.secagg.messages import read_one

__all__ = ["Party", "Secure", "masks"]


@dataclass(frozen=True)
class Secure:
    """What both sides of a federation agree on for all rounds.

    lenient: a cohort too small for a sum counts as nobody, instead of ending the run.
    apart: groups that are summed by themselves; None: a cohort is one sum.
    run: a name of the federation that no other has.
    """

    summed: Summed
    terms: Terms
    lenient: bool = False
    apart: Apart | None = None
    run: str = ""

    def configuration(self, context: Context) -> Configuration:
        """That of the sum which a client is part of, as this side sees it.

        Raises:
            ProtocolError: for a client that is not of the cohort.
        """
        for group in self.groups(context):
            if context.client in group:
                return self._agreed(context, group)
        raise ProtocolError(f"{context.client} is asked, and is not of the cohort; nothing is said")

    def configurations(self, context: Context) -> tuple[Configuration, ...]:
        """Those of all sums of a round."""
        return tuple(self._agreed(context, group) for group in self.groups(context))

    def groups(self, context: Context) -> tuple[tuple[str, ...], ...]:
        """Who is summed with whom."""
        if self.apart is None:
            return (context.cohort,)
        return groups_of(self._run(context), context.round, context.cohort, self.apart.size)

    def among(self, context: Context) -> int:
        """How many clients the sum of one holds, it among them."""
        return sum(len(group) for group in self.groups(context) if context.client in group)

    def restored(self, totals: Sequence[Total]) -> Payload:
        """The aggregate that the sums of a round are."""
        means = [self.summed.restored(total) for total in totals]
        if self.apart is None:
            (mean,) = means
            return mean
        like = self.summed.like
        weighed = [
            {name: replace(one, weight=like[name].weight) for name, one in mean.items()}
            for mean in means
        ]
        return self.apart.folded(like, weighed)

    def _agreed(self, context: Context, group: Sequence[str]) -> Configuration:
        number, exchange, attempt = context.round, context.exchange, context.attempt
        moment = Moment(self._run(context), number, exchange, attempt)
        return agree(moment, group, self.summed.channels(), self.terms)

    def _run(self, context: Context) -> str:
        return self.run or context.run


class Party:
    """The clients of this process in secure sums; outside: hears what no range holds."""

    def __init__(self, secure: Secure, member: Callable[[str], Member], outside: Outside) -> None:
        self._secure, self._member, self._outside = secure, member, outside
        self._inboxes: dict[tuple[str, int, int], bytes] = {}

    def says(self, context: Context, step: str, message: bytes, room: int) -> bytes:
        """The answer to a step."""
        own, member = self._secure.configuration(context), self._member(context.client)
        if step == "advert":
            # Rounds follow one another: whatever came before is over, for who was left out too.
            member.give_up(own.moment.run, own.moment.exchange - 1)
            return member.advert(own)
        if step == "shares":
            return member.shares(own, message)
        if step == "inbox":
            self._inboxes = {key: kept for key, kept in self._inboxes.items()
                             if key[0] != context.client}  # fmt: skip
            self._inboxes[_at(context)] = message
            return b""
        answer = member.signature if step == "signature" else member.opening
        return answer(own, message)

    def sealed(self, request: Request, payload: Payload) -> Payload:
        """The one masked vector of a round."""
        at = request.context
        own, member = self._secure.configuration(at), self._member(at.client)
        summed = self._secure.summed
        vectors, outside = summed.values(payload)
        self._outside.tell(at, own.channels, outside)
        inbox = self._inboxes.pop(_at(at), b"")
        message = member.masked(
            own, inbox, root_of(request.payload), summed.words(own, member, vectors)
        )
        masked = np.frombuffer(read_one(Kind.MASKED, own, message), "<i4").astype(np.int32)
        return {MASKED: Channel({WORDS: torch.from_numpy(masked)}, "sum")}


def _at(context: Context) -> tuple[str, int, int]:
    return context.client, context.exchange, context.attempt


def masks(secure: Secure, party: Party, verify: Verifier) -> Stage:
    """The stage that hides single payloads; `verify`: against a roster that no server runs."""

    def travels(like: Payload) -> Payload:
        size = sum(channel.size for channel in secure.summed.channels())
        words = torch.zeros((), dtype=torch.int32).expand(size)
        return {MASKED: Channel({WORDS: words}, "sum")}

    def begin(runtime: Runtime, task: Task, like: Payload) -> Sealed:
        try:
            owns = secure.configurations(task.context)
        except (ConfigError, ProtocolError, QuorumError) as error:
            if not secure.lenient:
                raise QuorumError(f"round {task.context.round}: {error}") from error
            # Nobody is asked; that the round began is told all the same.
            asked = unasked(runtime.call([task], ()), task.context.cohort, str(error))
            return Sealed(asked, {}, _unasked, lambda state, clients: secure.summed.nothing())
        return Sums(runtime, task, owns, verify).sealed(secure.restored)

    def said(context: Context) -> tuple[int, int]:
        try:
            return said_beside(secure.configurations(context))
        except (ConfigError, ProtocolError, QuorumError):
            return 0, 0

    def same(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        return payload, state

    channels = tuple(name for name, one in secure.summed.like.items() if one.reduce != "none")
    return Stage(
        "masks", channels, same, sums_only=True, dense_floats=True,
        group=0 if secure.apart is None else secure.apart.size,
        sealing=Sealing(travels, party.sealed, begin, secure.among, said),
    )  # fmt: skip


def _unasked(state: State, client: str, payload: Payload) -> State:
    raise AssertionError("nobody was asked")
