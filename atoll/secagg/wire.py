"""Bytes that can be written in one way only, and a reader that believes none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atoll.errors import ProtocolError

__all__ = [
    "NUMBER",
    "Reader",
    "blob",
    "number",
    "read_items",
    "read_list",
    "write_items",
    "write_list",
]

NUMBER = 4
"""Bytes of a count, and of a place."""


def number(value: int, size: int = NUMBER) -> bytes:
    """A whole number that is not negative, big-endian."""
    return value.to_bytes(size, "big")


def blob(content: bytes) -> bytes:
    """Bytes behind their length."""
    return number(len(content)) + content


def write_list(places: Sequence[int]) -> bytes:
    """Places of clients in their cohort, ascending."""
    return number(len(places)) + b"".join(number(place) for place in places)


def write_items(items: Mapping[int, bytes]) -> bytes:
    """Bytes of one length for some clients, each behind its place; places ascend."""
    return b"".join(number(place) + items[place] for place in sorted(items))


class Reader:
    """Takes bytes from the front; a slice of what is there, never room for what is claimed.

    what: the name of it all, for errors.

    Raises:
        ProtocolError: from each method, when it is not as it was agreed.
    """

    def __init__(self, raw: bytes | memoryview, what: str) -> None:
        self._rest, self.what = memoryview(raw), what

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > len(self._rest):
            raise self.wrong(f"ends after {len(self._rest)} of {size} bytes")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def number(self, size: int = NUMBER) -> int:
        """The next whole number."""
        return int.from_bytes(self.take(size), "big")

    def blob(self) -> bytes:
        """The next bytes behind their length."""
        return self.take(self.number())

    def text(self) -> str:
        """The next bytes behind their length, as UTF-8."""
        try:
            return self.blob().decode()
        except UnicodeDecodeError:
            raise self.wrong("has a name that is no text") from None

    def left(self) -> int:
        """How many bytes are not taken yet."""
        return len(self._rest)

    def end(self) -> None:
        """Nothing may be left."""
        if self._rest:
            raise self.wrong(f"has {len(self._rest)} bytes too many")

    def wrong(self, why: str) -> ProtocolError:
        """The error to raise."""
        return ProtocolError(f"{self.what} {why}; nothing of it was used")


def read_list(reader: Reader, clients: int) -> tuple[int, ...]:
    """Places as `write_list` wrote them: ascending, none twice, all of the cohort."""
    count = reader.number()
    if count > clients:
        raise reader.wrong(f"lists {count} clients of a cohort of {clients}")
    raw = reader.take(NUMBER * count)
    places = [int.from_bytes(raw[at : at + NUMBER], "big") for at in range(0, len(raw), NUMBER)]
    _check_places(reader, places, clients)
    return tuple(places)


def read_items(reader: Reader, size: int, clients: int) -> dict[int, bytes]:
    """Items of `size` bytes as `write_items` wrote them, to the end."""
    count, odd = divmod(reader.left(), NUMBER + size)
    if odd or count > clients:
        raise reader.wrong(f"is no list of {size} bytes each for a cohort of {clients}")
    items = [(reader.number(), reader.take(size)) for _ in range(count)]
    _check_places(reader, [place for place, _ in items], clients)
    return dict(items)


def _check_places(reader: Reader, places: Sequence[int], clients: int) -> None:
    for before, place in zip((-1, *places), places, strict=False):
        if place <= before:
            raise reader.wrong(f"names client {place} twice, or out of order")
        if place >= clients:
            raise reader.wrong(f"names client {place} of a cohort of {clients}")
