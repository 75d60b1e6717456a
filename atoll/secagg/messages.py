"""The messages of one exchange, in bytes: their lengths are known before anything is read.

    up to the server      down to the clients      bytes (k neighbours, n clients, d values)
    ADVERT                ADVERTS                  200            40 + 164 n
    SHARES                INBOX                    40 + 86 k      40 + 86 k
    MASKED                SURVIVORS                40 + 4 d       48 + 4 n
    SIGNATURE             SIGNATURES               104            40 + 68 signers
    OPENING                                        40 + 37 (k + 1)

Each begins with a mark, its kind and the configuration's hash. Clients go by their places in the
cohort; who sent a message is the transport's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from atoll.secagg.configuration import Configuration
from atoll.secagg.keys import KEY, SIGNATURE
from atoll.secagg.shamir import SHARE
from atoll.secagg.wire import NUMBER, Reader, read_items, read_list, write_items, write_list

__all__ = [
    "TAG",
    "Advert",
    "Kind",
    "Survivors",
    "bytes_of",
    "most_bytes",
    "read_each",
    "read_one",
    "write_each",
    "write_one",
]

TAG = 16
"""Bytes that encryption adds."""
# With the kind 8 bytes, so that a masked vector lies as the processor likes it.
_MARK = b"asecag1"


class Kind(IntEnum):
    """What a message is."""

    ADVERT = 1
    ADVERTS = 2
    SHARES = 3
    INBOX = 4
    MASKED = 5
    SURVIVORS = 6
    SIGNATURE = 7
    SIGNATURES = 8
    OPENING = 9


# Bytes of what one client says, or of what is said of each.
_SIZES = {
    Kind.ADVERT: 3 * KEY + SIGNATURE, Kind.ADVERTS: 3 * KEY + SIGNATURE,
    Kind.SHARES: 2 * SHARE + TAG, Kind.INBOX: 2 * SHARE + TAG,
    Kind.SIGNATURE: SIGNATURE, Kind.SIGNATURES: SIGNATURE, Kind.OPENING: SHARE,
}  # fmt: skip
_SINGLE = {Kind.ADVERT, Kind.MASKED, Kind.SIGNATURE}


@dataclass(frozen=True)
class Advert:
    """A client's fresh public keys.

    sealing: that shares for it are encrypted to.   masking: that pairwise masks come from.
    commitment: to the seed of its own mask.   signature: by its identity, over `statement`.
    """

    sealing: bytes
    masking: bytes
    commitment: bytes
    signature: bytes = b""

    def statement(self, configuration: Configuration, name: str) -> bytes:
        """What its signature is over."""
        return b"atoll secagg advert\0" + configuration.digest + self._keys + name.encode()

    def to_bytes(self) -> bytes:
        """160 bytes."""
        return self._keys + self.signature

    @classmethod
    def from_bytes(cls, raw: bytes) -> Advert:
        """The other way."""
        return cls(raw[:KEY], raw[KEY : 2 * KEY], raw[2 * KEY : 3 * KEY], raw[3 * KEY :])

    @property
    def _keys(self) -> bytes:
        return self.sealing + self.masking + self.commitment


@dataclass(frozen=True)
class Survivors:
    """Who is summed, and who shared its secrets and stopped before its vector came; by place."""

    alive: tuple[int, ...]
    dropped: tuple[int, ...]

    def to_bytes(self, configuration: Configuration) -> bytes:
        """To every survivor."""
        return _head(Kind.SURVIVORS, configuration) + self.packed

    @property
    def packed(self) -> bytes:
        """Both lists, without the head."""
        return write_list(self.alive) + write_list(self.dropped)

    @classmethod
    def from_bytes(cls, raw: bytes | memoryview, configuration: Configuration) -> Survivors:
        """At a client.

        Raises:
            ProtocolError: as `read_one` does, and for a list with a client twice.
        """
        reader = _opened(raw, Kind.SURVIVORS, configuration)
        clients = len(configuration.cohort)
        found = cls(read_list(reader, clients), read_list(reader, clients))
        reader.end()
        return found


def most_bytes(kind: Kind, configuration: Configuration) -> int:
    """The longest message of a kind: a transport refuses more before it takes it."""
    everyone, near = len(configuration.cohort), configuration.neighbours
    most = {Kind.SHARES: near, Kind.INBOX: near, Kind.OPENING: near + 1}
    return bytes_of(kind, configuration, most.get(kind, everyone))


def bytes_of(kind: Kind, configuration: Configuration, clients: int) -> int:
    """A message that says something of so many clients, where its kind speaks of several."""
    head = len(_head(kind, configuration))
    if kind == Kind.SURVIVORS:
        return head + NUMBER * (clients + 2)
    if kind in _SINGLE:
        return head + _size(kind, configuration)
    return head + (NUMBER + _size(kind, configuration)) * clients


def write_one(kind: Kind, configuration: Configuration, content: bytes | memoryview) -> bytes:
    """What one client says."""
    return b"".join((_head(kind, configuration), content))


def read_one(kind: Kind, configuration: Configuration, raw: bytes | memoryview) -> memoryview:
    """What one client said, as a view of `raw`.

    Raises:
        ProtocolError: for another kind, length, or configuration.
    """
    size, head = _size(kind, configuration), len(_head(kind, configuration))
    reader = _opened(raw, kind, configuration)
    if reader.left() != size:
        raise reader.wrong(f"has {head + reader.left()} bytes, expected {head + size}")
    return memoryview(raw)[head:]


def write_each(kind: Kind, configuration: Configuration, items: Mapping[int, bytes]) -> bytes:
    """Something for each of some clients."""
    return _head(kind, configuration) + write_items(items)


def read_each(
    kind: Kind, configuration: Configuration, raw: bytes | memoryview
) -> dict[int, bytes]:
    """The other way.

    Raises:
        ProtocolError: as `read_one` does, and where a client comes twice, or is none of the cohort.
    """
    size, clients = _size(kind, configuration), len(configuration.cohort)
    return read_items(_opened(raw, kind, configuration), size, clients)


def _size(kind: Kind, configuration: Configuration) -> int:
    return 4 * configuration.size if kind == Kind.MASKED else _SIZES[kind]


def _head(kind: Kind, configuration: Configuration) -> bytes:
    return _MARK + bytes([kind]) + configuration.digest


def _opened(raw: bytes | memoryview, kind: Kind, configuration: Configuration) -> Reader:
    reader = Reader(raw, f"a message {kind.name}")
    head = _head(kind, configuration)
    got = reader.take(len(head))
    if got[:8] != head[:8]:
        raise reader.wrong("does not begin as one")
    if got != head:
        raise reader.wrong(
            f"is bound to the configuration {got[8:16].hex()}…, and this one is "
            f"{head[8:16].hex()}…: cohort, threshold, neighbours, channels or the exchange differ"
        )
    return reader
