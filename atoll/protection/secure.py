"""Secure aggregation of a round: the server sees the sum of its clients' payloads, and none.

advert, shares   questions before the round: keys, and shares of what could be lost
inbox            rides on the round's own question; what comes back is masked
signature        who is summed, on which model, signed by each
opening          what takes the masks off the sum
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from atoll.core import (
    Channel,
    Context,
    Failure,
    Payload,
    Reply,
    Request,
    Runtime,
    Sealed,
    Sealing,
    Stage,
    Task,
    Tree,
    payload_nbytes,
)
from atoll.errors import QuorumError
from atoll.protection.speaking import SPEAKING, at_step, message_of, question_of
from atoll.protection.summed import MASKED, WORDS, Summed, root_of
from atoll.secagg import Configuration, Kind, Member, Moment, Terms, agree, most_bytes
from atoll.secagg.gathered import ServerState
from atoll.secagg.keys import Verifier
from atoll.secagg.messages import read_one
from atoll.secagg.server import close, finish, gather, route, witness

__all__ = ["Party", "Secure", "masks"]

KINDS = {"advert": Kind.ADVERT, "shares": Kind.SHARES, "signature": Kind.SIGNATURE,
         "opening": Kind.OPENING}  # fmt: skip


@dataclass(frozen=True)
class Secure:
    """What both sides of a federation agree on for all rounds.

    lenient: a cohort too small for a sum counts as nobody, instead of ending the run.
    """

    summed: Summed
    terms: Terms
    lenient: bool = False

    def configuration(self, context: Context) -> Configuration:
        """That of one round, as this side sees it."""
        channels = self.summed.channels()
        moment = Moment(context.run, context.round, context.exchange)
        return agree(moment, context.cohort, channels, self.terms)


class Party:
    """The clients of this process in secure sums."""

    def __init__(self, secure: Secure, member: Callable[[str], Member]) -> None:
        self._secure, self._member = secure, member
        self._inboxes: dict[tuple[str, int], bytes] = {}

    def says(self, context: Context, step: str, message: bytes, room: int) -> bytes:
        """The answer to a step."""
        own, member = self._secure.configuration(context), self._member(context.client)
        if step == "advert":
            return member.advert(own)
        if step == "shares":
            return member.shares(own, message)
        if step == "inbox":
            self._inboxes = {key: kept for key, kept in self._inboxes.items()
                             if key[0] != context.client}  # fmt: skip
            self._inboxes[context.client, context.exchange] = message
            return b""
        answer = member.signature if step == "signature" else member.opening
        return answer(own, message)

    def sealed(self, request: Request, payload: Payload) -> Payload:
        """The one masked vector of a round."""
        at = request.context
        own, member = self._secure.configuration(at), self._member(at.client)
        words = self._secure.summed.words(own, member, payload)
        inbox = self._inboxes.pop((at.client, at.exchange), b"")
        message = member.masked(own, inbox, root_of(request.payload), words)
        masked = np.frombuffer(read_one(Kind.MASKED, own, message), "<i4").astype(np.int32)
        return {MASKED: Channel({WORDS: torch.from_numpy(masked)}, "sum")}


def masks(secure: Secure, party: Party, verify: Verifier) -> Stage:
    """The stage that hides single payloads; `verify`: against a roster that no server runs."""

    def travels(like: Payload) -> Payload:
        size = sum(channel.size for channel in secure.summed.channels())
        words = torch.zeros((), dtype=torch.int32).expand(size)
        return {MASKED: Channel({WORDS: words}, "sum")}

    def begin(runtime: Runtime, task: Task, like: Payload) -> Sealed:
        try:
            own = secure.configuration(task.context)
        except Exception as error:
            if not secure.lenient:
                raise QuorumError(f"round {task.context.round}: {error}") from error
            return Sealed(iter(()), lambda a, clients: secure.summed.nothing(), lambda: (0, 0))
        return _Round(secure, runtime, task, own, verify).sealed()

    def same(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        return payload, state

    channels = tuple(name for name, one in secure.summed.like.items() if one.reduce != "none")
    return Stage(
        "masks", channels, same, sums_only=True, dense_floats=True,
        sealing=Sealing(travels, party.sealed, begin),
    )  # fmt: skip


@dataclass
class _Round:
    """The server's side of one secure sum."""

    secure: Secure
    runtime: Runtime
    task: Task
    own: Configuration
    verify: Verifier
    moved: list[int] = field(default_factory=lambda: [0, 0])

    def sealed(self) -> Sealed:
        context = self.task.context
        root = root_of(self.task.broadcast(context.cohort[0]))
        adverts = self._said("advert", dict.fromkeys(context.cohort, b""))
        state, everyone, _ = gather(self.own, root, self.verify, adverts)
        shares = self._said("shares", dict.fromkeys(adverts, everyone))
        state, inboxes, _ = route(state, shares)

        def recover(aggregate: Payload, clients: Sequence[str]) -> Payload:
            return self._opened(state, aggregate, clients)

        return Sealed(self._masked(inboxes), recover, lambda: (self.moved[0], self.moved[1]))

    def _said(self, step: str, messages: Mapping[str, bytes]) -> dict[str, bytes]:
        """What clients answer to a step; who does not, or says what is no message, drops out."""
        found: dict[str, bytes] = {}
        task = self._step(step, messages)
        for reply in self.runtime.call([task], tuple(messages)):
            if isinstance(reply, Reply):
                found[reply.client] = message_of(reply.payload)
                self.moved[0] += payload_nbytes(reply.payload)
        return found

    def _step(self, step: str, messages: Mapping[str, bytes]) -> Task:
        room = most_bytes(KINDS[step], self.own) if step in KINDS else 0
        shared: dict[bytes, Payload] = {}
        questions = {
            client: shared.setdefault(message, question_of(message, room))
            for client, message in messages.items()
        }
        self.moved[1] += sum(payload_nbytes(one) for one in questions.values())
        folded: Mapping[str, int] = self.task.folded
        if step in ("signature", "opening"):
            # Their states of this round are those that count, before a position says so.
            folded = dict.fromkeys(messages, self.task.context.exchange)
        moment = at_step(self.task.context, step)
        return Task(SPEAKING, moment, lambda client: questions[client], folded)

    def _masked(self, inboxes: Mapping[str, bytes]) -> Iterator[Reply | Failure]:
        """The round's own question, with its inbox before it."""
        beside = self._step("inbox", inboxes)
        heard = set[str]()
        for reply in self.runtime.call([beside, self.task], tuple(inboxes)):
            # The first answer of each is about its inbox.
            if reply.client in heard:
                yield reply
            heard.add(reply.client)

    def _opened(self, state: ServerState, aggregate: Payload, clients: Sequence[str]) -> Payload:
        words = aggregate[MASKED].tree[WORDS].numpy()
        total = np.remainder(words, 2**32).astype(np.uint32)
        alive = frozenset(self.own.place(client) for client in clients)
        state = replace(state, total=total, alive=alive)
        survivors = close(state)
        signatures = self._said("signature", dict.fromkeys(clients, survivors))
        confirmed, _ = witness(state, signatures)
        openings = self._said("opening", dict.fromkeys(clients, confirmed))
        found, _ = finish(state, openings)
        return self.secure.summed.restored(found)
