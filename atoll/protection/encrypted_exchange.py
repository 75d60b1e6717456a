"""The server's side of one encrypted sum: what it asks, and what it adds without reading it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from atoll.ckks import (
    ANSWER,
    CHALLENGE,
    MOST_KEY,
    STEP,
    Agreed,
    Answer,
    Challenge,
    Mark,
    PublicKey,
    Sum,
    plain_size,
    products,
    proved,
    read_plain,
    reduced,
    size_of,
    unpack,
)
from atoll.core import Channel, Failure, Payload, Reply, Sealed, State, Task, Tree
from atoll.errors import PROTOCOL, ClosedError, ProtocolError
from atoll.protection.encrypted_questions import Questions
from atoll.protection.speaking import CHALLENGES, second
from atoll.protection.summed import Summed, root_of
from atoll.secagg import Total
from atoll.secagg.keys import Verifier

__all__ = ["CIPHERTEXTS", "ENCRYPTED", "MARK_OF", "EncryptedSum", "added", "sent"]

ENCRYPTED, CIPHERTEXTS, MARK_OF = "encrypted", "ciphertexts", "mark"
"""The one channel, and its two tensors, that leave a client."""
TENSORS = (CIPHERTEXTS, MARK_OF)


@dataclass
class EncryptedSum:
    """The server's side of one encrypted sum.   lost: who was in it, and could not prove that."""

    summed: Summed
    asks: Questions
    verify: Verifier
    lost: list[Failure] = field(default_factory=list)

    def sealed(self) -> Sealed:
        """The exchange, once the holder has made a key for it.

        Raises:
            ClosedError: when it does not.
        """
        try:
            key = self.asks.holder("key", b"", MOST_KEY)
            PublicKey.from_bytes(key, self.asks.agreed, self.verify)
        except ProtocolError as error:
            raise ClosedError(str(error)) from error
        task, moved = self.asks.task, self.asks.moved
        root = root_of(task.broadcast(task.context.cohort[0]))
        hashed = hashlib.sha256(key).digest()

        def recover(state: State, clients: Sequence[str]) -> Payload:
            self.asks.answered = clients
            return self._decrypted(state, hashed, root)

        return Sealed(
            self._encrypted(key, hashed, root), {}, added, recover,
            lambda: (moved[0], moved[1]), lambda: tuple(self.lost),
        )  # fmt: skip

    def _encrypted(self, key: bytes, hashed: bytes, root: bytes) -> Iterator[Reply | Failure]:
        """The round's own question, with the key before it."""
        asks, cohort = self.asks, self.asks.task.context.cohort
        beside = asks.step("inbox", key, 0, cohort)
        for reply in second(asks.runtime.call([beside, asks.task], cohort)):
            yield self._judged(reply, hashed, root) if isinstance(reply, Reply) else reply

    def _judged(self, reply: Reply, key: bytes, root: bytes) -> Reply | Failure:
        """A reply, unless it cannot be added, or was changed on its way."""
        tree = reply.payload[ENCRYPTED].tree if ENCRYPTED in reply.payload else {}
        if any(name not in tree or tree[name].dtype != torch.uint8 for name in TENSORS):
            return reply  # its shapes are looked at next, and refused
        try:
            raw = tree[CIPHERTEXTS].numpy()
            mark = _mark(tree)
            unpack(raw, self.asks.agreed.rows)
            statement = mark.statement(self.asks.agreed, key, root)
            same = hashlib.sha256(raw.data).digest() == mark.hashed
            if not same or not self.verify(reply.client, statement, mark.signature):
                raise ProtocolError(
                    "its ciphertexts are not those that it signed, for this sum and after this "
                    "model; they are left out"
                )
        except ProtocolError as error:
            return Failure(reply.client, PROTOCOL, str(error))
        return reply

    def _decrypted(self, state: State, key: bytes, root: bytes) -> Payload:
        """What the holder says of the sum of those that prove that it is theirs."""
        asks, agreed, left = self.asks, self.asks.agreed, dict(state)
        try:
            for again in range(CHALLENGES):
                asked = self._sum(left, root)
                message = asked.to_bytes(agreed)
                hashed = agreed.digest + hashlib.sha256(message).digest()
                raw = asks.holder("challenge", hashed, CHALLENGE, again)
                challenge = Challenge.from_bytes(raw, agreed, key, self.verify)
                task = asks.step("answer", raw, ANSWER, tuple(left), again)
                answers = self._answers(task, key, challenge, left)
                if answers.keys() == asked.marks.keys():
                    words = asks.holder("decrypt", proved(answers, message), plain_size(agreed))
                    total = _as_total(read_plain(words, agreed), agreed, asked.marks)
                    return self.summed.restored(total)
        except ProtocolError as error:
            raise ClosedError(str(error)) from error
        raise ClosedError(
            f"the sum was asked about {CHALLENGES} times, and each time another client did not "
            f"prove its part, {self.lost[-1].client} the last of them"
        )

    def _sum(self, left: Mapping[str, Tree], root: bytes) -> Sum:
        agreed = self.asks.agreed
        if len(left) < agreed.floor:
            raise ClosedError(
                f"{len(left)} clients answered, and {agreed.holder} decrypts no sum of fewer than "
                f"{agreed.floor} (privacy.min_survivors, federation.min_clients)"
            )
        first, *others = left.values()
        total = _rows(first)
        for tree in others:
            total += _rows(tree)  # 20 numbers of 54 bits fit 64
        return Sum(root, {agreed.place(n): _mark(tree) for n, tree in left.items()}, reduced(total))

    def _answers(
        self, task: Task, key: bytes, challenge: Challenge, left: dict[str, Tree]
    ) -> dict[int, Answer]:
        """The answers to a challenge, by place; who gives none is taken out of `left`."""
        found, agreed = dict[int, Answer](), self.asks.agreed
        for name, said in self.asks.said(task, tuple(left)):
            try:
                if isinstance(said, Failure):
                    raise ProtocolError(said.message)
                answer, mark = Answer.from_bytes(said), _mark(left[name])
                statement = answer.statement(agreed, key, challenge, mark)
                same = answer.products == products(challenge.seed, _rows(left[name]))
                if not same or not self.verify(name, statement, answer.signature):
                    raise ProtocolError("its answer is not that of the ciphertexts that it sent")
                found[agreed.place(name)] = answer
            except ProtocolError as error:
                kind = said.kind if isinstance(said, Failure) else PROTOCOL
                self.lost.append(Failure(name, kind, f"taken out of the sum: {error}"))
                del left[name]
        return found


def sent(ciphertexts: torch.Tensor, mark: torch.Tensor) -> Payload:
    """What leaves a client."""
    return {ENCRYPTED: Channel({CIPHERTEXTS: ciphertexts, MARK_OF: mark}, "none")}


def added(state: State, client: str, payload: Payload) -> State:
    """Each by itself until the sum is told: one that does not prove its part is taken out of it."""
    return {**state, client: payload[ENCRYPTED].tree}


def _rows(tree: Tree) -> NDArray[np.uint64]:
    raw = tree[CIPHERTEXTS].numpy()
    return unpack(raw, raw.size // size_of(1))


def _mark(tree: Tree) -> Mark:
    return Mark.from_bytes(tree[MARK_OF].numpy().tobytes())


def _as_total(words: NDArray[np.int32], agreed: Agreed, marks: Mapping[int, Mark]) -> Total:
    integers, steps, at = {}, {}, 0
    for channel in agreed.channels:
        integers[channel.name] = words[at : at + channel.size]
        steps[channel.name] = STEP * channel.bound
        at += channel.size
    return Total(tuple(agreed.cohort[place] for place in sorted(marks)), integers, steps)
