"""A Merkle tree over a broadcast: that a slice belongs to what all clients were sent.

Source: RFC 6962, section 2.1, whose tree hash this is; the root also says how many slices there
are, so that a proof fixes the place of its slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.errors import ProtocolError
from atoll.secagg.keys import KEY

__all__ = ["MerkleTree", "Proof", "check_slice", "tree"]

# So that no leaf passes for a node, and no tree for one of another size.
_LEAF, _NODE, _ROOT = b"\0", b"\1", b"\2"
_MOST_LEVELS = 64


@dataclass(frozen=True)
class Proof:
    """Where a slice stands among `count`, and the digests beside its way up to the root."""

    index: int
    count: int
    path: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Two numbers of 8 bytes, and 32 bytes a level."""
        numbers = self.index.to_bytes(8, "big") + self.count.to_bytes(8, "big")
        return numbers + b"".join(self.path)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Proof:
        """The other way.

        Raises:
            ProtocolError: for anything that `to_bytes` does not write.
        """
        if not 16 <= len(raw) <= 16 + KEY * _MOST_LEVELS or (len(raw) - 16) % KEY:
            raise ProtocolError(f"a proof has 16 bytes and 32 for each level, not {len(raw)}")
        path = tuple(raw[at : at + KEY] for at in range(16, len(raw), KEY))
        return cls(int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big"), path)


@dataclass(frozen=True)
class MerkleTree:
    """The digests of each level, the leaves' first."""

    levels: tuple[tuple[bytes, ...], ...]

    @property
    def root(self) -> bytes:
        """What stands for all slices, their order and their number."""
        return _root(len(self.levels[0]), self.levels[-1][0])

    def proof(self, index: int) -> Proof:
        """That the slice at `index` belongs to the root."""
        path, at = [], index
        for level in self.levels[:-1]:
            if at ^ 1 < len(level):
                path.append(level[at ^ 1])
            at //= 2
        return Proof(index, len(self.levels[0]), tuple(path))


def tree(slices: Sequence[bytes | memoryview]) -> MerkleTree:
    """The tree over these slices; at least one."""
    assert slices, "a broadcast has a slice"
    levels = [tuple(_leaf(each) for each in slices)]
    while len(level := levels[-1]) > 1:
        pairs = [_node(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
        # The last of an odd level has no partner and goes up as it is.
        levels.append((*pairs, *level[len(level) & ~1 :]))
    return MerkleTree(tuple(levels))


def check_slice(root: bytes, content: bytes | memoryview, proof: Proof) -> None:
    """Hold a slice against the root that all clients sign.

    Raises:
        ProtocolError: when it is not the slice that stands at that place.
    """
    digest, at, last, path = _leaf(content), proof.index, proof.count - 1, iter(proof.path)
    try:
        while last > 0:
            if at & 1:
                digest = _node(next(path), digest)
            elif at < last:
                digest = _node(digest, next(path))
            at, last = at // 2, last // 2
    except StopIteration:
        digest = b""
    if next(path, None) is not None or not 0 <= proof.index < proof.count:
        digest = b""
    if _root(proof.count, digest) != root:
        raise ProtocolError(
            f"slice {proof.index} of {proof.count} is not of the broadcast with root {root.hex()}: "
            "this client was sent another model than its root says; nothing is trained on it"
        )


def _leaf(content: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(_LEAF)
    digest.update(content)
    return digest.digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def _root(count: int, top: bytes) -> bytes:
    return hashlib.sha256(_ROOT + count.to_bytes(8, "big") + top).digest()
