"""An exchange with fixed keys, bit for bit, and computed again with another library.

vectors.json is written by `python -m tests.unit.secagg.test_vectors`; a change of it is a change of
the protocol, which clients of another version do not understand.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from Crypto.Cipher import AES, ChaCha20_Poly1305
from Crypto.Hash import SHA256
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement
from Crypto.Protocol.KDF import HKDF
from Crypto.Signature import eddsa

from atoll.secagg import Channel, Configuration, Identity, Kind, Moment
from atoll.secagg.client import advertise, confirm, mask, open_sum, share
from atoll.secagg.graph import ring
from atoll.secagg.keys import roster_verifier
from atoll.secagg.messages import Advert, Survivors, most_bytes
from atoll.secagg.session import begun
from tests.support.sums import ROOT, inbox_of

FILE = Path(__file__).with_name("vectors.json")
PRIME = 2**256 + 297
WORDS = {place: np.array([1, -2, 3, 1000 + place, -(2**28)], np.int32) for place in range(3)}
ALIVE, DROPPED = (0, 1), (2,)


def _configuration() -> Configuration:
    channels = (Channel.fitted("update", 4, 1.0, 3), Channel.fitted("weight", 1, 512.0, 3))
    return Configuration(Moment("vectors", 4, 9, 1), ("ada", "bob", "cy"), 2, 2, 2, 2, channels)


def _secret(place: int, what: str) -> bytes:
    return hashlib.sha256(f"{what} of client {place}".encode()).digest()


def _drawn(place: int, size: int) -> bytes:
    return _secret(place, "exchange")[:size]


def exchange() -> dict[str, Any]:
    """All that is said, in hexadecimal digits."""
    made = _configuration()
    identities = {at: Identity(_secret(at, "identity")) for at in range(3)}
    verify = roster_verifier({made.cohort[at]: each.public for at, each in identities.items()})
    states, adverts = {}, {}
    for at, name in enumerate(made.cohort):
        entropy = partial(_drawn, at)
        states[at], adverts[at] = advertise(made, name, identities[at].sign, entropy=entropy)
    sealed, masked, signatures, openings = {}, {}, {}, {}
    for at in range(3):
        states[at], sealed[at] = share(states[at], adverts, verify)
    for at in range(3):
        states[at], masked[at] = mask(states[at], inbox_of(at, sealed), ROOT, WORDS[at].copy())
    for at in ALIVE:
        survivors = Survivors(ALIVE, DROPPED)
        states[at], signatures[at] = confirm(states[at], survivors, identities[at].sign)
    for at in ALIVE:
        openings[at] = open_sum(states[at], signatures, verify)[1]
    session = begun(made, adverts)
    return {
        "configuration": made.to_bytes().hex(),
        "digest": made.digest.hex(),
        "adverts": {str(at): advert.to_bytes().hex() for at, advert in adverts.items()},
        "session": session.digest.hex(),
        "ring of 12": list(ring(range(12), 4, session.digest).order),
        "sealed": _hex(sealed),
        "masked": {str(at): words.astype("<u4").tobytes().hex() for at, words in masked.items()},
        "signatures": {str(at): each.hex() for at, each in signatures.items()},
        "openings": _hex(openings),
        "lengths": {kind.name: most_bytes(kind, made) for kind in Kind},
    }


def _hex(items: dict[int, dict[int, bytes]]) -> dict[str, dict[str, str]]:
    return {
        str(at): {str(other): raw.hex() for other, raw in sorted(each.items())}
        for at, each in items.items()
    }


def test_every_byte_is_as_it_was() -> None:
    assert exchange() == json.loads(FILE.read_text())


def _hkdf(key: bytes, label: str, context: bytes = b"") -> bytes:
    info = b"atoll secagg " + label.encode() + b"\0" + context
    return bytes(HKDF(key, 32, b"", SHA256, 1, info))  # type: ignore[arg-type]


def _agreed(secret: bytes, public: bytes) -> bytes:
    return bytes(key_agreement(
        static_priv=import_x25519_private_key(secret),
        static_pub=import_x25519_public_key(public), kdf=lambda raw: raw,
    ))  # fmt: skip


def _at(*places: int) -> bytes:
    return b"".join(place.to_bytes(4, "big") for place in places)


def _words(seed: bytes) -> np.ndarray:
    cipher = AES.new(seed[:24], AES.MODE_CTR, nonce=seed[24:], initial_value=2)
    return np.frombuffer(cipher.encrypt(bytes(20)), "<u4").astype(np.int64)


class Written:
    """The same exchange from the description of the protocol, with PyCryptodome and integers."""

    def __init__(self) -> None:
        self.vectors = json.loads(FILE.read_text())
        self.digest = hashlib.sha256(bytes.fromhex(self.vectors["configuration"])).digest()
        packed = {at: bytes.fromhex(self.vectors["adverts"][str(at)]) for at in range(3)}
        self.adverts = {at: Advert.from_bytes(raw) for at, raw in packed.items()}
        text = b"atoll secagg session\0" + self.digest
        text += b"".join(_at(at) + packed[at] for at in range(3))
        self.session = hashlib.sha256(text).digest()

    def key(self, at: int, label: str) -> bytes:
        return _hkdf(_secret(at, "exchange"), label)

    def pair(self, one: int, other: int) -> bytes:
        agreed = _agreed(self.key(one, "masking key"), self.adverts[other].masking)
        return _hkdf(agreed, "pair", self.session + ROOT + _at(*sorted((one, other))))

    def share(self, owner: int, what: str, holder: int) -> bytes:
        """Threshold 2: a line."""
        seed = self.key(owner, f"shares of {what}")
        stream = AES.new(seed, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(48))
        secret = int.from_bytes(self.key(owner, what), "big")
        value = int.from_bytes(stream, "big") * (holder + 1) + secret
        return (value % PRIME).to_bytes(33, "big")


def test_another_library_finds_the_same_adverts() -> None:
    written = Written()
    assert written.digest.hex() == written.vectors["digest"]
    assert written.session.hex() == written.vectors["session"]
    for at, advert in written.adverts.items():
        for label, public in (("sealing key", advert.sealing), ("masking key", advert.masking)):
            private = import_x25519_private_key(written.key(at, label))
            assert private.public_key().export_key(format="raw") == public
        own = written.key(at, "own mask")
        assert advert.commitment == _hkdf(own, "commitment", written.digest + _at(at))
        statement = b"atoll secagg advert\0" + written.digest
        statement += advert.sealing + advert.masking + advert.commitment
        statement += ("ada", "bob", "cy")[at].encode()
        identity = eddsa.import_private_key(_secret(at, "identity")).public_key()
        eddsa.new(identity, "rfc8032").verify(statement, advert.signature)
    order = sorted(range(12), key=lambda at: hashlib.sha256(written.session + _at(at)).digest())
    assert order == written.vectors["ring of 12"]


def test_another_library_opens_the_same_shares() -> None:
    written = Written()
    for source, inbox in written.vectors["sealed"].items():
        owner = int(source)
        for target, raw in inbox.items():
            holder, content = int(target), bytes.fromhex(raw)
            assert len(content) == 82
            agreed = _agreed(written.key(holder, "sealing key"), written.adverts[owner].sealing)
            key = _hkdf(agreed, "sealing", written.session + _at(owner, holder))
            cipher = ChaCha20_Poly1305.new(key=key, nonce=bytes(12))
            cipher.update(written.session + _at(owner, holder))
            plain = cipher.decrypt_and_verify(content[:-16], content[-16:])
            assert plain[:33] == written.share(owner, "own mask", holder)
            assert plain[33:] == written.share(owner, "masking key", holder)
    for holder, shares in written.vectors["openings"].items():
        for owner, raw in shares.items():
            what = "own mask" if int(owner) in ALIVE else "masking key"
            assert raw == written.share(int(owner), what, int(holder)).hex()


def test_another_library_finds_the_same_masks_and_signatures() -> None:
    written = Written()
    for at in range(3):
        own = _hkdf(written.key(at, "own mask"), "own", written.session + _at(at))
        expected = WORDS[at].astype(np.int64) + _words(own)
        for other in {0, 1, 2} - {at}:
            expected += (1 if at < other else -1) * _words(written.pair(at, other))
        raw = (expected % 2**32).astype("<u4").tobytes()
        assert raw.hex() == written.vectors["masked"][str(at)]
    lists = _at(2, 0, 1) + _at(1, 2)
    statement = b"atoll secagg survivors\0" + written.session + ROOT
    statement += hashlib.sha256(lists).digest()
    for at, signature in written.vectors["signatures"].items():
        identity = eddsa.import_private_key(_secret(int(at), "identity")).public_key()
        eddsa.new(identity, "rfc8032").verify(statement, bytes.fromhex(signature))


if __name__ == "__main__":
    FILE.write_text(json.dumps(exchange(), indent=1) + "\n")
