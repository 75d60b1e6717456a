"""The server's side of one round of secure sums: what it asks, and what it takes from answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from atoll.core import Failure, Payload, Reply, Runtime, Sealed, State, Task, payload_nbytes
from atoll.errors import PROTOCOL, ClosedError, ProtocolError, QuorumError
from atoll.protection.beside import room_of
from atoll.protection.speaking import SPEAKING, at_step, heard, question_of, second
from atoll.protection.summed import MASKED, WORDS, root_of
from atoll.secagg import Configuration, Total
from atoll.secagg.gathered import Refused, ServerState
from atoll.secagg.keys import Verifier
from atoll.secagg.server import close, finish, gather, route, witness

__all__ = ["Sums"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Sums:
    """One exchange, with a sum for each configuration; every step is asked of all together.

    A sum that stays closed ends by itself; the last one ends the exchange.
    """

    def __init__(
        self, runtime: Runtime, task: Task, owns: Sequence[Configuration], verify: Verifier
    ) -> None:
        self._runtime, self._task, self._owns, self._verify = runtime, task, owns, verify
        self._moved = [0, 0]
        self._lost: list[tuple[Configuration, Exception]] = []
        self._failed = dict[str, Failure]()

    def sealed(self, restored: Callable[[Sequence[Total]], Payload]) -> Sealed:
        """The exchange, once clients have keys; restored: what the opened sums are."""
        root = root_of(self._task.broadcast(self._task.context.cohort[0]))
        adverts = self._said("advert", dict.fromkeys(self._task.context.cohort, b""))
        begun = self._each(
            self._owns, lambda own: own,
            lambda own: self._noted(*gather(own, root, self._verify, _of(own, adverts))),
        )  # fmt: skip
        told = {name: everyone for state, everyone in begun
                for name in _of(state.configuration, adverts)}  # fmt: skip
        shares = self._said("shares", told)
        routed = self._each(
            [state for state, _ in begun], _own,
            lambda state: self._noted(*route(state, _of(state.configuration, shares))),
        )  # fmt: skip
        inboxes = {name: inbox for _, found in routed for name, inbox in found.items()}
        states = [state for state, _ in routed]
        sums = {name: str(number) for number, state in enumerate(states)
                for name in state.configuration.cohort}  # fmt: skip

        def add(state: State, client: str, payload: Payload) -> State:
            return _added(state, sums[client], payload)

        def recover(state: State, clients: Sequence[str]) -> Payload:
            words = [state.get(str(number), {}).get(WORDS) for number in range(len(states))]
            return restored(self._opened([
                _folded(one, total, clients) for one, total in zip(states, words, strict=True)
            ]))  # fmt: skip

        return Sealed(
            self._masked(inboxes), {}, add, recover,
            lambda: (self._moved[0], self._moved[1]), self._closed, self._wrong,
        )  # fmt: skip

    def _each(
        self,
        items: Iterable[Item],
        own: Callable[[Item], Configuration],
        step: Callable[[Item], Result],
    ) -> list[Result]:
        """A step of every sum; raises what the first one ended by where none goes on."""
        found: list[Result] = []
        for item in items:
            try:
                found.append(step(item))
            except (ProtocolError, QuorumError) as error:
                self._lost.append((own(item), error))
        if not found:
            first = self._lost[0][1]
            raise ClosedError(str(first)) from first
        return found

    def _noted(self, first: Item, then: Result, refused: Refused) -> tuple[Item, Result]:
        """Both, once it is kept whose messages were not used."""
        for name, why in refused.items():
            self._failed.setdefault(name, Failure(name, PROTOCOL, why))
        return first, then

    def _wrong(self) -> tuple[Failure, ...]:
        """Clients that are summed, and said what could not be used; absent is none of that."""
        return tuple(one for one in self._failed.values() if one.kind == PROTOCOL)

    def _closed(self) -> tuple[Failure, ...]:
        return tuple(
            Failure(name, "closed", f"the sum of its group stays closed: {error}")
            for own, error in self._lost for name in own.cohort
        )  # fmt: skip

    def _said(self, step: str, messages: Mapping[str, bytes]) -> dict[str, bytes]:
        """What clients answer to a step; who does not, or says what is no message, drops out."""
        found: dict[str, bytes] = {}
        task = self._step(step, messages)
        for reply in self._runtime.call([task], tuple(messages)):
            if isinstance(reply, Reply):
                self._moved[0] += payload_nbytes(reply.payload)
            if isinstance(said := heard(reply), Failure):
                self._failed.setdefault(said.client, said)
            else:
                found[reply.client] = said
        return found

    def _step(self, step: str, messages: Mapping[str, bytes]) -> Task:
        room = room_of(step, self._owns)
        shared: dict[bytes, Payload] = {}
        questions = {
            client: shared.setdefault(message, question_of(message, room))
            for client, message in messages.items()
        }
        self._moved[1] += sum(payload_nbytes(one) for one in questions.values())
        folded: Mapping[str, int] = self._task.folded
        if step in ("signature", "opening"):
            # Their states of this round are those that count, before a position says so.
            folded = dict.fromkeys(messages, self._task.context.exchange)
        moment = at_step(self._task.context, step)
        return Task(SPEAKING, moment, lambda client: questions[client], folded)

    def _masked(self, inboxes: Mapping[str, bytes]) -> Iterator[Reply | Failure]:
        """The round's own question, with its inbox before it."""
        beside = self._step("inbox", inboxes)
        yield from [self._failed.pop(name) for name in self._failed.keys() - inboxes.keys()]
        yield from second(self._runtime.call([beside, self._task], tuple(inboxes)))

    def _opened(self, states: Sequence[ServerState]) -> list[Total]:
        """The sums, of those of which enough clients sign and open the same."""
        closing = self._each(states, _own, lambda state: (state, close(state)))
        told = {name: survivors for state, survivors in closing for name in _alive(state)}
        signatures = self._said("signature", told)
        signed = self._each(
            [state for state, _ in closing], _own,
            lambda state: self._noted(
                state, *witness(state, _of(state.configuration, signatures))
            ),
        )  # fmt: skip
        told = {name: confirmed for state, confirmed in signed for name in _alive(state)}
        openings = self._said("opening", told)
        return self._each(
            [state for state, _ in signed], _own,
            lambda state: self._noted(state, *finish(state, _of(state.configuration, openings)))[1],
        )  # fmt: skip


def _own(state: ServerState) -> Configuration:
    return state.configuration


def _of(own: Configuration, messages: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the clients of one sum said."""
    return {name: messages[name] for name in own.cohort if name in messages}


def _alive(state: ServerState) -> list[str]:
    return [state.configuration.cohort[place] for place in sorted(state.alive)]


def _added(state: State, number: str, payload: Payload) -> State:
    """The sums with one masked vector more, modulo 2³², which grow where they are."""
    words = payload[MASKED].tree[WORDS]
    if number not in state:
        return {**state, number: {WORDS: words.clone()}}
    total = state[number][WORDS].numpy().view(np.uint32)
    np.add(total, words.numpy().view(np.uint32), out=total)
    return state


def _folded(state: ServerState, words: torch.Tensor | None, clients: Sequence[str]) -> ServerState:
    """What the server knows once vectors are added; no words: nobody's."""
    own = state.configuration
    if words is None:
        return state
    alive = frozenset(own.place(name) for name in clients if name in own.cohort)
    return replace(state, total=words.numpy().view(np.uint32), alive=alive)
