"""Encrypted sums of a round: the server adds what it cannot read, and a client decrypts the sum.

key       asked of the holder before the round: the key of this sum, which it signs
inbox     brings that key, with the round's own question; what comes back is encrypted
challenge asked of the holder, who is told the hash of the sum
answer    asked of those that are in it: what proves to the holder that it is their sum
decrypt   asked of the holder: the sum, once enough clients have signed and proved it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atoll.ckks import MARK, MOST_VALUES, Agreed, Silo, rows_of, size_of
from atoll.core import Context, Payload, Request, Runtime, Sealed, Sealing, Stage, Task, Tree
from atoll.core.answers import unasked
from atoll.errors import CompositionError, ProtocolError, QuorumError
from atoll.protection.beside import said_encrypted
from atoll.protection.encrypted_exchange import EncryptedSum, added, sent
from atoll.protection.encrypted_questions import Questions
from atoll.protection.outside import Outside
from atoll.protection.summed import Summed, root_of
from atoll.secagg import Moment
from atoll.secagg.keys import Verifier

__all__ = ["Encrypting", "Holding", "encryption"]


@dataclass(frozen=True)
class Encrypting:
    """What both sides of a federation agree on for all rounds.

    holder: the client with the key.   floor: the fewest clients of a sum.
    lenient: a cohort too small for a sum counts as nobody, instead of ending the run.
    run: a name of the federation that no other has.
    """

    summed: Summed
    holder: str
    floor: int
    lenient: bool = False
    run: str = ""

    def agreed(self, context: Context) -> Agreed:
        """That of one round, as this side sees it."""
        moment = Moment(
            self.run or context.run, context.round, context.exchange, context.attempt
        )  # fmt: skip
        cohort, channels = tuple(sorted(context.cohort)), self.summed.channels()
        return Agreed(moment, cohort, self.holder, self.floor, channels)

    def check(self) -> None:
        """Refuse updates that are too large.

        Raises:
            CompositionError: with both numbers.
        """
        size = sum(channel.size for channel in self.summed.channels())
        if size > MOST_VALUES:
            raise CompositionError(
                f"privacy.secure_aggregation is ckks, whose sums have {MOST_VALUES:,} values at "
                f"most, and an update has {size:,}; lower adapter.r, or set it to true"
            )


class Holding:
    """The clients of this process in encrypted sums, the holder of the key perhaps among them.

    outside: hears what no range holds.
    """

    def __init__(
        self, encrypting: Encrypting, silo: Callable[[str], Silo], outside: Outside
    ) -> None:
        self._encrypting, self._silo, self._outside = encrypting, silo, outside
        self._keys: dict[str, tuple[tuple[int, int], bytes]] = {}
        # Ciphertexts stay for challenges, until the next sum begins.
        self._sent: dict[str, tuple[tuple[int, int], bytes, NDArray[np.uint8]]] = {}

    def says(self, context: Context, step: str, message: bytes, room: int) -> bytes:
        """The answer to a step."""
        agreed, silo = self._encrypting.agreed(context), self._silo(context.client)
        if step == "key":
            return silo.key(agreed)
        if step == "challenge":
            return silo.challenge(agreed, message)
        if step == "answer":
            return self._answer(context, agreed, message)
        if step == "decrypt":
            return silo.decrypted(agreed, message)
        if step != "inbox":
            raise ProtocolError(f"step '{step}' is none of an encrypted sum")
        self._sent = {name: one for name, one in self._sent.items() if one[0] == _at(context)}
        self._keys[context.client] = (_at(context), message)
        silo.check(agreed, message)
        return b""

    def sealed(self, request: Request, payload: Payload) -> Payload:
        """The encrypted values of a round."""
        at, encrypting = request.context, self._encrypting
        moment, message = self._keys.pop(at.client, (None, b""))
        if moment != _at(at):
            raise ProtocolError("the key of this sum did not come; nothing is sent in the clear")
        agreed, (vectors, outside) = encrypting.agreed(at), encrypting.summed.values(payload)
        raw, mark = self._silo(at.client).encrypted(
            agreed, message, root_of(request.payload), vectors
        )
        self._outside.tell(at, agreed.channels, outside)
        self._sent[at.client] = (_at(at), message, raw)
        return sent(torch.from_numpy(raw), torch.frombuffer(bytearray(mark), dtype=torch.uint8))

    def _answer(self, context: Context, agreed: Agreed, message: bytes) -> bytes:
        moment, key, raw = self._sent.get(context.client, (None, b"", np.empty(0, np.uint8)))
        if moment != _at(context):
            raise ProtocolError(
                f"{context.client} is asked about a sum that it sent nothing to, or has started "
                "again since; its part cannot be proved"
            )
        return self._silo(context.client).answer(agreed, key, raw, message)


def _at(context: Context) -> tuple[int, int]:
    return context.exchange, context.attempt


def encryption(encrypting: Encrypting, holding: Holding, verify: Verifier) -> Stage:
    """The stage that hides single payloads; `verify`: against a roster that no server runs."""
    summed = encrypting.summed

    def travels(like: Payload) -> Payload:
        size = size_of(rows_of(sum(channel.size for channel in summed.channels())))
        byte = torch.zeros((), dtype=torch.uint8)
        return sent(byte.expand(size), byte.expand(MARK))

    def begin(runtime: Runtime, task: Task, like: Payload) -> Sealed:
        try:
            agreed = encrypting.agreed(task.context)
        except ProtocolError as error:
            if not encrypting.lenient:
                raise QuorumError(f"round {task.context.round}: {error}") from error
            # Nobody is asked; that the round began is told all the same.
            asked = unasked(runtime.call([task], ()), task.context.cohort, str(error))
            return Sealed(asked, {}, added, lambda state, clients: summed.nothing())
        return EncryptedSum(summed, Questions(runtime, task, agreed), verify).sealed()

    def same(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        return payload, state

    def said(context: Context) -> tuple[int, int]:
        try:
            return said_encrypted(encrypting.agreed(context))
        except ProtocolError:
            return 0, 0  # a cohort that has no sum

    channels = tuple(name for name, one in summed.like.items() if one.reduce != "none")
    return Stage(
        "ckks", channels, same, sums_only=True, dense_floats=True, never_groups=True,
        sealing=Sealing(travels, holding.sealed, begin, lambda context: len(context.cohort), said),
    )  # fmt: skip
