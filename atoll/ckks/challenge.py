"""What proves that a sum is that of the ciphertexts which clients signed: products nobody foresaw.

Once the holder has the hash of a sum, it draws numbers rho, and every client in the sum tells
<rho, its ciphertexts>. Those add up to <rho, the sum>, or the sum is another one: a difference that
was fixed before has a product of zero with one in 2³² of the numbers of 32 bits that each of its
coefficients is multiplied by, and with one in 2¹²⁸ of four such. What is told follows from
ciphertexts that the server has, so it says nothing more to it.

    challenge  holder -> clients   hash of what was agreed, of the sum, a seed, signature
    answer     client -> server    four products, signature
    proved     server -> holder    the answers of those that are summed, the message with the sum
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.agreed import Agreed
from atoll.ckks.messages import Mark, Sum, check_same
from atoll.ckks.scheme import COEFFICIENTS, MODULUS
from atoll.errors import ProtocolError
from atoll.secagg.keys import KEY, SIGNATURE, Signer, Verifier
from atoll.secagg.masks import stream
from atoll.secagg.wire import NUMBER, Reader, number, read_items, write_items

__all__ = [
    "ANSWER",
    "CHALLENGE",
    "Answer",
    "Challenge",
    "check_proved",
    "products",
    "proved",
    "read_proved",
]

PRODUCTS, WORD = 4, 8
"""Products of 32-bit numbers with a ciphertext, and bytes of one."""
CHALLENGE = 3 * KEY + SIGNATURE
"""Bytes of a challenge."""
ANSWER = PRODUCTS * WORD + SIGNATURE
"""Bytes of an answer."""
HALF, TOGETHER = 27, 32
"""Bits of half a coefficient; 32 products of such a half with 32 bits are below 2⁶⁴."""


@dataclass(frozen=True)
class Challenge:
    """summed: SHA-256 of the message with the sum.   seed: of the numbers rho."""

    summed: bytes
    seed: bytes

    def statement(self, agreed: Agreed, key: bytes) -> bytes:
        """What the holder signs; key: SHA-256 of the message with its key."""
        return b"atoll encrypted sum challenge\0" + agreed.digest + key + self.summed + self.seed

    def to_bytes(self, agreed: Agreed, key: bytes, sign: Signer) -> bytes:
        """With the holder's signature."""
        content = agreed.digest + self.summed + self.seed
        return content + sign(self.statement(agreed, key))

    @classmethod
    def from_bytes(cls, raw: bytes, agreed: Agreed, key: bytes, verify: Verifier) -> Challenge:
        """The other way.

        Raises:
            ProtocolError: unless the holder made it, for this sum and this key.
        """
        if len(raw) != CHALLENGE:
            raise ProtocolError(f"a challenge has {len(raw)} bytes, and one has {CHALLENGE}")
        check_same(raw, agreed, "a challenge")
        found = cls(raw[KEY : 2 * KEY], raw[2 * KEY : 3 * KEY])
        if not verify(agreed.holder, found.statement(agreed, key), raw[3 * KEY :]):
            raise ProtocolError(
                f"a challenge was not signed by {agreed.holder}, who holds the key, for the key of "
                "this sum; it is not answered"
            )
        return found


@dataclass(frozen=True)
class Answer:
    """products: of a client's ciphertexts."""

    products: tuple[int, ...]
    signature: bytes = b""

    def statement(self, agreed: Agreed, key: bytes, challenge: Challenge, mark: Mark) -> bytes:
        """What a client signs: to this challenge, of these ciphertexts."""
        about = challenge.statement(agreed, key) + mark.hashed
        return b"atoll encrypted sum answer\0" + about + self._words()

    def to_bytes(self) -> bytes:
        """See `ANSWER`."""
        return self._words() + self.signature

    @classmethod
    def from_bytes(cls, raw: bytes) -> Answer:
        """The other way.

        Raises:
            ProtocolError: for another length, or a product beyond the modulus.
        """
        if len(raw) != ANSWER:
            raise ProtocolError(f"an answer has {len(raw)} bytes, and one has {ANSWER}")
        words = np.frombuffer(raw, ">u8", PRODUCTS).tolist()
        if max(words) >= MODULUS:
            raise ProtocolError("an answer has a product beyond the modulus")
        return cls(tuple(words), raw[PRODUCTS * WORD :])

    def _words(self) -> bytes:
        return b"".join(one.to_bytes(WORD, "big") for one in self.products)


def products(seed: bytes, rows: NDArray[np.uint64]) -> tuple[int, ...]:
    """<rho, all coefficients> modulo the prime of ciphertexts, for each rho of a seed."""
    drawn, zeros = stream(seed), bytes(4 * PRODUCTS * COEFFICIENTS)
    prime, low = np.uint64(MODULUS), np.uint64(2**HALF - 1)
    total = np.zeros((PRODUCTS, 2), np.uint64)
    for row in rows:
        words = np.frombuffer(drawn.update(zeros), "<u4").astype(np.uint64)
        halves = np.stack([row & low, row >> np.uint64(HALF)])
        each = words.reshape(PRODUCTS, 1, COEFFICIENTS) * halves
        # Below 2⁶⁴, then 256 of them below 2⁵⁴.
        few = each.reshape(PRODUCTS, 2, TOGETHER, -1).sum(axis=2) % prime
        total = (total + few.sum(axis=2)) % prime
    return tuple((low + (high << HALF)) % MODULUS for low, high in total.tolist())


def check_proved(
    agreed: Agreed,
    key: bytes,
    challenge: Challenge,
    asked: Sum,
    answers: Mapping[int, Answer],
    verify: Verifier,
) -> None:
    """Refuse what is not the sum of the marked ciphertexts, each of them once.

    key: SHA-256 of the message with the holder's.

    Raises:
        ProtocolError: before anything is decrypted.
    """
    for place, mark in asked.marks.items():
        name, said = agreed.cohort[place], answers.get(place)
        if said is None or not verify(
            name, said.statement(agreed, key, challenge, mark), said.signature
        ):
            raise ProtocolError(
                f"{name} did not answer the challenge of this sum; nothing is decrypted"
            )
    each = zip(*(answers[place].products for place in asked.marks), strict=True)
    if tuple(sum(some) % MODULUS for some in each) != products(challenge.seed, asked.rows):
        raise ProtocolError(
            "what was to be decrypted is not the sum of what these clients sent, each of them "
            "once: the server changed it"
        )


def proved(answers: Mapping[int, Answer], message: bytes) -> bytes:
    """A sum for the holder, behind the answers of those that are in it, by place."""
    items = write_items({place: answer.to_bytes() for place, answer in answers.items()})
    return b"".join((number(len(items)), items, message))


def read_proved(raw: bytes, agreed: Agreed) -> tuple[dict[int, Answer], memoryview]:
    """The answers, and the message with the sum.

    Raises:
        ProtocolError: for another length, a client that comes twice, or is none of the cohort.
    """
    packed = Reader(raw, "a sum with its answers").blob()
    items = read_items(Reader(packed, "the answers of a sum"), ANSWER, len(agreed.cohort))
    answers = {place: Answer.from_bytes(one) for place, one in items.items()}
    return answers, memoryview(raw)[NUMBER + len(packed) :]
