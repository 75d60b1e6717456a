"""The server's side of one encrypted sum: what it asks, and what it adds without reading it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from atoll.ckks import (
    MOST_KEY,
    STEP,
    Agreed,
    Mark,
    PublicKey,
    Sum,
    plain_size,
    read_plain,
    reduced,
    size_of,
    unpack,
)
from atoll.core import (
    Channel,
    Failure,
    Payload,
    Reply,
    Runtime,
    Sealed,
    State,
    Task,
    payload_nbytes,
)
from atoll.errors import PROTOCOL, ClosedError, ProtocolError
from atoll.protection.speaking import SPEAKING, at_step, message_of, question_of, second
from atoll.protection.summed import Summed, root_of
from atoll.secagg import Total
from atoll.secagg.keys import Verifier

__all__ = ["CIPHERTEXTS", "ENCRYPTED", "MARK_OF", "EncryptedSum", "added", "sent"]

ENCRYPTED, CIPHERTEXTS, MARK_OF = "encrypted", "ciphertexts", "mark"
"""The one channel, and its two tensors, that leave a client."""
TENSORS = (CIPHERTEXTS, MARK_OF)
SUM, MARKS = "sum", "marks"


@dataclass
class EncryptedSum:
    """The server's side of one encrypted sum."""

    summed: Summed
    runtime: Runtime
    task: Task
    agreed: Agreed
    verify: Verifier
    moved: list[int] = field(default_factory=lambda: [0, 0])

    def sealed(self) -> Sealed:
        """The exchange, once the holder has made a key for it.

        Raises:
            ClosedError: when it does not.
        """
        try:
            key = self._holder("key", b"", MOST_KEY)
            PublicKey.from_bytes(key, self.agreed, self.verify)
        except ProtocolError as error:
            raise ClosedError(str(error)) from error
        root = root_of(self.task.broadcast(self.task.context.cohort[0]))

        def recover(state: State, clients: Sequence[str]) -> Payload:
            return self._decrypted(state, root, clients)

        return Sealed(
            self._encrypted(key, root), {}, added, recover, lambda: (self.moved[0], self.moved[1])
        )

    def _encrypted(self, key: bytes, root: bytes) -> Iterator[Reply | Failure]:
        """The round's own question, with the key before it."""
        context, hashed = self.task.context, hashlib.sha256(key).digest()
        beside = self._step("inbox", key, 0, context.cohort)
        for reply in second(self.runtime.call([beside, self.task], context.cohort)):
            yield self._judged(reply, hashed, root) if isinstance(reply, Reply) else reply

    def _judged(self, reply: Reply, key: bytes, root: bytes) -> Reply | Failure:
        """A reply, unless it cannot be added, or was changed on its way."""
        tree = reply.payload[ENCRYPTED].tree if ENCRYPTED in reply.payload else {}
        if any(name not in tree or tree[name].dtype != torch.uint8 for name in TENSORS):
            return reply  # its shapes are looked at next, and refused
        try:
            raw = tree[CIPHERTEXTS].numpy()
            mark = Mark.from_bytes(tree[MARK_OF].numpy().tobytes())
            unpack(raw, self.agreed.rows)
            statement = mark.statement(self.agreed, key, root)
            same = hashlib.sha256(raw.data).digest() == mark.hashed
            if not same or not self.verify(reply.client, statement, mark.signature):
                raise ProtocolError(
                    "its ciphertexts are not those that it signed, for this sum and after this "
                    "model; they are left out"
                )
        except ProtocolError as error:
            return Failure(reply.client, PROTOCOL, str(error))
        return reply

    def _decrypted(self, state: State, root: bytes, clients: Sequence[str]) -> Payload:
        """What the holder says of the sum."""
        agreed = self.agreed
        marks = {agreed.place(name): Mark.from_bytes(mark.numpy().tobytes())
                 for name, mark in state.get(MARKS, {}).items()}  # fmt: skip
        if len(marks) < agreed.floor:
            raise ClosedError(
                f"{len(marks)} clients answered, and {agreed.holder} decrypts no sum of fewer than "
                f"{agreed.floor} (privacy.min_survivors)"
            )
        rows = reduced(state[SUM][CIPHERTEXTS].numpy().view(np.uint64))
        message = Sum(root, marks, rows).to_bytes(agreed)
        # Its state of this round is the one that counts, before a position says so.
        now = {agreed.holder: self.task.context.exchange} if agreed.holder in clients else {}
        try:
            answer = self._holder("decrypt", message, plain_size(agreed), now)
            words = read_plain(answer, agreed)
        except ProtocolError as error:
            raise ClosedError(str(error)) from error
        return self.summed.restored(_as_total(words, agreed, marks))

    def _holder(
        self, step: str, message: bytes, room: int, now: Mapping[str, int] | None = None
    ) -> bytes:
        """What the holder answers to a step.

        Raises:
            ClosedError: when it does not.
        """
        holder = self.agreed.holder
        task = self._step(step, message, room, (holder,))
        task = replace(task, folded={**task.folded, **(now or {})})
        # To the end: a runtime takes it for given up else.
        said = {reply.client: reply for reply in list(self.runtime.call([task], (holder,)))}
        reply = said.get(holder, Failure(holder, "absent", "it is not here"))
        if isinstance(reply, Failure):
            why = reply.message
            raise ClosedError(f"{holder}, who holds the key of this sum, does not answer: {why}")
        self.moved[0] += payload_nbytes(reply.payload)
        return message_of(reply.payload)

    def _step(self, step: str, message: bytes, room: int, clients: Sequence[str]) -> Task:
        question = question_of(message, room)
        self.moved[1] += payload_nbytes(question) * len(clients)
        moment = at_step(self.task.context, step)
        return Task(SPEAKING, moment, lambda client: question, self.task.folded)


def sent(ciphertexts: torch.Tensor, mark: torch.Tensor) -> Payload:
    """What leaves a client."""
    return {ENCRYPTED: Channel({CIPHERTEXTS: ciphertexts, MARK_OF: mark}, "none")}


def added(state: State, client: str, payload: Payload) -> State:
    """The sum with one client more, which grows where it is: 20 numbers of 54 bits fit 64."""
    tree = payload[ENCRYPTED].tree
    raw = tree[CIPHERTEXTS].numpy()
    rows = unpack(raw, raw.size // size_of(1)).view(np.int64)
    marks = {**state.get(MARKS, {}), client: tree[MARK_OF]}
    if SUM not in state:
        return {SUM: {CIPHERTEXTS: torch.from_numpy(rows)}, MARKS: marks}
    total = state[SUM][CIPHERTEXTS].numpy()
    np.add(total, rows, out=total)
    return {**state, MARKS: marks}


def _as_total(words: NDArray[np.int32], agreed: Agreed, marks: Mapping[int, Mark]) -> Total:
    integers, steps, at = {}, {}, 0
    for channel in agreed.channels:
        integers[channel.name] = words[at : at + channel.size]
        steps[channel.name] = STEP * channel.bound
        at += channel.size
    return Total(tuple(agreed.cohort[place] for place in sorted(marks)), integers, steps)
