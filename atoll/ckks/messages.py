"""The messages of one encrypted sum, in bytes: their lengths are known before anything is read.

    key    holder -> clients   hash, public context, signature
    mark   client -> server    hash of its ciphertexts, signature: beside those
    sum    server -> holder    hash, root, the marks of those that are summed, the sum
    plain  holder -> server    hash, the sum in whole numbers of 4 bytes

The hash is of what was agreed. Of a sum, the holder is first told the hash; see `challenge`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.agreed import Agreed
from atoll.ckks.packed import pack, size_of, unpack
from atoll.ckks.scheme import MOST_CONTEXT
from atoll.errors import ProtocolError
from atoll.secagg.keys import KEY, SIGNATURE, Signer, Verifier
from atoll.secagg.wire import NUMBER, Reader, read_items, write_items

__all__ = [
    "MARK",
    "MOST_KEY",
    "USUAL_KEY",
    "Mark",
    "PublicKey",
    "Sum",
    "check_same",
    "plain_bytes",
    "plain_size",
    "read_plain",
    "sum_size",
]

MOST_KEY = KEY + MOST_CONTEXT + SIGNATURE
USUAL_KEY = 123_580
"""Bytes of a holder's key: it is compressed, to a few dozen more or less."""
MARK = KEY + SIGNATURE
"""Bytes of a mark."""


@dataclass(frozen=True)
class PublicKey:
    """What encrypts to the holder."""

    context: bytes

    def to_bytes(self, agreed: Agreed, sign: Signer) -> bytes:
        """With the holder's signature."""
        return agreed.digest + self.context + sign(_key_statement(agreed, self.context))

    @classmethod
    def from_bytes(cls, raw: bytes, agreed: Agreed, verify: Verifier) -> PublicKey:
        """Nothing of it is read before its signature holds.

        Raises:
            ProtocolError: unless the holder made it for this sum.
        """
        if not KEY + SIGNATURE < len(raw) <= MOST_KEY:
            raise ProtocolError(f"a key for an encrypted sum has {len(raw):,} bytes")
        content, signature = raw[KEY:-SIGNATURE], raw[-SIGNATURE:]
        check_same(raw, agreed, "a key for an encrypted sum")
        if not verify(agreed.holder, _key_statement(agreed, content), signature):
            raise ProtocolError(
                f"the key for this sum was not signed by {agreed.holder}, who holds it "
                "(privacy.key_holder): somebody else could read what is encrypted to it"
            )
        return cls(content)


@dataclass(frozen=True)
class Mark:
    """What a client signs.   hashed: SHA-256 of its ciphertexts."""

    hashed: bytes
    signature: bytes = b""

    def statement(self, agreed: Agreed, key: bytes, root: bytes) -> bytes:
        """key: SHA-256 of the holder's message.   root: of the broadcast that it was sent."""
        return b"atoll encrypted vector\0" + agreed.digest + key + root + self.hashed

    def to_bytes(self) -> bytes:
        """See `MARK`."""
        return self.hashed + self.signature

    @classmethod
    def from_bytes(cls, raw: bytes) -> Mark:
        """The other way.

        Raises:
            ProtocolError: for another length.
        """
        if len(raw) != MARK:
            raise ProtocolError(f"a mark has {len(raw)} bytes, and one has {MARK}")
        return cls(raw[:KEY], raw[KEY:])


@dataclass(frozen=True)
class Sum:
    """What the holder is asked to decrypt.   marks: by place in the cohort."""

    root: bytes
    marks: Mapping[int, Mark]
    rows: NDArray[np.uint64]

    def to_bytes(self, agreed: Agreed) -> bytes:
        """For the holder."""
        items = write_items({place: mark.to_bytes() for place, mark in self.marks.items()})
        marks = len(items).to_bytes(NUMBER, "big") + items
        return b"".join((agreed.digest, self.root, marks, pack(self.rows).data))

    @classmethod
    def from_bytes(cls, raw: bytes | memoryview, agreed: Agreed) -> Sum:
        """At the holder.

        Raises:
            ProtocolError: for another length, a client that comes twice, or is none of the cohort.
        """
        check_same(raw, agreed, "an encrypted sum")
        reader = Reader(memoryview(raw)[KEY:], "an encrypted sum")
        root, marks = reader.take(KEY), Reader(reader.blob(), "the marks of an encrypted sum")
        found = read_items(marks, MARK, len(agreed.cohort))
        values = np.frombuffer(reader.take(reader.left()), np.uint8)
        kept = {place: Mark.from_bytes(mark) for place, mark in found.items()}
        return cls(root, kept, unpack(values, agreed.rows))


def sum_size(agreed: Agreed) -> int:
    """Bytes of the sum of all clients, on its way to the holder."""
    return 2 * KEY + NUMBER + len(agreed.cohort) * (NUMBER + MARK) + size_of(agreed.rows)


def plain_size(agreed: Agreed) -> int:
    """Bytes of the holder's answer."""
    return KEY + 4 * agreed.size


def plain_bytes(agreed: Agreed, words: NDArray[np.int32]) -> bytes:
    """The holder's answer."""
    return agreed.digest + words.astype("<i4", copy=False).tobytes()


def read_plain(raw: bytes, agreed: Agreed) -> NDArray[np.int32]:
    """The sum in whole numbers.

    Raises:
        ProtocolError: for another length or sum.
    """
    if len(raw) != plain_size(agreed):
        raise ProtocolError(f"a decrypted sum has {len(raw):,} bytes, not {plain_size(agreed):,}")
    check_same(raw, agreed, "a decrypted sum")
    return np.frombuffer(raw, "<i4", agreed.size, KEY).astype(np.int32)


def _key_statement(agreed: Agreed, content: bytes) -> bytes:
    return b"atoll encrypted sum key\0" + agreed.digest + hashlib.sha256(content).digest()


def check_same(raw: bytes | memoryview, agreed: Agreed, what: str) -> None:
    """Refuse a message that was made for another sum."""
    if raw[:KEY] != agreed.digest:
        raise ProtocolError(
            f"{what} was made for another sum: cohort, holder, floor, channels or the exchange "
            "differ"
        )
