"""Keys of secure sums: who a client is for good, and the fresh keys of one exchange."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from atoll.errors import ProtocolError

__all__ = [
    "KEY",
    "SIGNATURE",
    "Identity",
    "Signer",
    "Verifier",
    "check_public",
    "claim",
    "common",
    "derive",
    "private_key",
    "roster_verifier",
]

KEY = 32
"""Bytes of a key, a seed or a digest."""
SIGNATURE = 64
"""Bytes of an Ed25519 signature."""

# Points of X25519 whose order divides 8, on the curve and on its twist: u of 0, 1 and -1, and the
# two of order 8. https://cr.yp.to/ecdh.html#validate
_FIELD = 2**255 - 19
_SMALL = (
    0, 1, _FIELD - 1,
    0xB8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)  # fmt: skip
# In all 32 bytes that mean one of them: a number may be given with the field's size added, and the
# highest bit does not count (RFC 7748, section 5).
_REFUSED = frozenset(
    (number + high).to_bytes(KEY, "little")
    for small in _SMALL
    for number in (small, small + _FIELD)
    if number < 2**255
    for high in (0, 2**255)
)

Signer = Callable[[bytes], bytes]
"""A client's own signature over a message."""
Verifier = Callable[[str, bytes, bytes], bool]
"""(name, message, signature) -> whether it is that client's."""


def derive(key: bytes, label: str, context: bytes = b"", size: int = KEY) -> bytes:
    """Bytes that tell nothing of `key` or of those under other labels (HKDF-SHA256, RFC 5869).

    context: of the same length wherever a label is used, so that no two of them run together.
    """
    return HKDF(SHA256(), size, None, b"atoll secagg %s\0%s" % (label.encode(), context)).derive(
        key
    )


class Identity:
    """A client's long-term Ed25519 key, which signs what it says in every exchange."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.private, self.public = private, self._key.public_key().public_bytes_raw()

    @classmethod
    def new(cls, entropy: Callable[[int], bytes] = os.urandom) -> Identity:
        """A fresh one."""
        return cls(entropy(KEY))

    def sign(self, message: bytes) -> bytes:
        """64 bytes, the same for the same message."""
        return self._key.sign(message)


def claim(name: str, public: bytes) -> bytes:
    """What the key of a site's certificate signs, once, for its identity to stand on a roster."""
    return b"atoll secagg identity\0" + public + name.encode()


def roster_verifier(roster: Mapping[str, bytes]) -> Verifier:
    """Signatures are held against these public keys, by client; a stranger's are nobody's."""
    keys = {name: Ed25519PublicKey.from_public_bytes(key) for name, key in roster.items()}

    def verify(name: str, message: bytes, signature: bytes) -> bool:
        if name not in keys:
            return False
        try:
            keys[name].verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify


def private_key(secret: bytes) -> tuple[X25519PrivateKey, bytes]:
    """The key agreement of these 32 bytes, and its public half."""
    key = X25519PrivateKey.from_private_bytes(secret)
    return key, key.public_key().public_bytes_raw()


def check_public(key: bytes) -> None:
    """Refuse a public key with which everyone agrees on the same.

    Raises:
        ProtocolError: with the key.
    """
    if key in _REFUSED:
        raise ProtocolError(_unfit(key))


def common(own: X25519PrivateKey, other: bytes) -> bytes:
    """What two parties alone can compute; to be passed through `derive`.

    Raises:
        ProtocolError: for a public key of small order, with which anyone could compute it.
    """
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise ProtocolError(_unfit(other)) from None


def _unfit(key: bytes) -> str:
    return f"{key.hex()} is no public key of X25519; whoever sent it must send a fresh advert"
