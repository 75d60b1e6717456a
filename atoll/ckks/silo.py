"""A client of encrypted sums, one of whom holds the key: bytes come, bytes go."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.agreed import Agreed
from atoll.ckks.challenge import Answer, Challenge, check_proved, products, read_proved
from atoll.ckks.messages import Mark, PublicKey, Sum, check_same, plain_bytes
from atoll.ckks.packed import pack, unpack
from atoll.ckks.plain import check_range, in_rows, smudged
from atoll.ckks.scheme import (
    decrypted,
    encrypted,
    new_context,
    private_bytes,
    private_context,
    public_bytes,
    public_context,
)
from atoll.ckks.store import Kept, Store
from atoll.errors import PayloadError, ProtocolError
from atoll.secagg.keys import KEY, Signer, Verifier, derive
from atoll.secagg.wire import Reader, blob

__all__ = ["Silo"]


class Silo:
    """One client in all encrypted sums of a federation.

    sign: with the client's identity.   verify: against a roster that the server does not run.

    The key is another one for each sum, and is forgotten before what it decrypted is told: nobody
    can have a second sum, or what a client sent, decrypted with it.

    Raises:
        ProtocolError: from every call, for a message that is not as agreed, or out of turn.
    """

    def __init__(self, name: str, sign: Signer, verify: Verifier, store: Store) -> None:
        self.name, self._sign, self._verify, self._store = name, sign, verify, store

    def key(self, agreed: Agreed) -> bytes:
        """As the holder, a fresh key; asked again for the same sum, the same one."""
        self._check_holder(agreed)
        run, moment = agreed.moment.run, agreed.moment
        kept = self._store.load(run)
        if moment.exchange < kept.decrypted:
            raise ProtocolError(
                f"{self.name} has decrypted the sum of exchange {moment.exchange} of {run}, or of "
                "a later one: a second sum over other clients could be subtracted from the first"
            )
        if not kept.of(moment):
            secret = blob(os.urandom(KEY)) + blob(private_bytes(new_context()))
            kept = Kept(kept.decrypted, moment.exchange, moment.attempt, secret)
            self._store.save(run, kept)
        return self._message(agreed, kept.secret)

    def check(self, agreed: Agreed, message: bytes) -> None:
        """Refuse a key that the holder did not make for this sum."""
        PublicKey.from_bytes(message, agreed, self._verify)

    def encrypted(
        self,
        agreed: Agreed,
        message: bytes,
        root: bytes,
        values: Mapping[str, NDArray[np.floating]],
    ) -> tuple[NDArray[np.uint8], bytes]:
        """A client's ciphertexts, and its mark.

        message: the holder's key.   root: of the broadcast that this client was sent.
        values: by channel; what is outside of its range counts as the end of it.

        Raises:
            PayloadError: for values that are not finite.
        """
        agreed.place(self.name)
        found = PublicKey.from_bytes(message, agreed, self._verify)
        flat = np.concatenate([
            np.asarray(values[one.name], np.float64) / one.bound for one in agreed.channels
        ])  # fmt: skip
        if flat.size != agreed.size or not np.isfinite(flat).all():
            raise PayloadError("an encrypted sum is of finite values, as many as were agreed")
        rows = in_rows(agreed, np.clip(flat, -1, 1))
        raw = pack(encrypted(public_context(found.context), rows))
        hashed = hashlib.sha256(raw.data).digest()
        signature = self._sign(Mark(hashed).statement(agreed, _hash(message), root))
        return raw, Mark(hashed, signature).to_bytes()

    def challenge(self, agreed: Agreed, message: bytes) -> bytes:
        """As the holder, what proves the sum of this hash, which is told before the sum is.

        Its seed follows from the key's secret and that hash: it is new to everybody else, and there
        is nothing to keep. Another sum has another one.
        """
        own, key, _ = self._opened(agreed)
        check_same(message, agreed, "the hash of an encrypted sum")
        if len(message) != 2 * KEY:
            raise ProtocolError(f"the hash of an encrypted sum came in {len(message)} bytes")
        return _challenge(own, key, message[KEY:]).to_bytes(agreed, key, self._sign)

    def answer(self, agreed: Agreed, key: bytes, sent: NDArray[np.uint8], message: bytes) -> bytes:
        """What a client answers to a challenge.

        key: the holder's, by which `sent` was encrypted.   sent: the client's own ciphertexts.
        """
        agreed.place(self.name)
        challenge = Challenge.from_bytes(message, agreed, _hash(key), self._verify)
        found = Answer(products(challenge.seed, unpack(sent, agreed.rows)))
        mark = Mark(hashlib.sha256(sent.data).digest())
        signature = self._sign(found.statement(agreed, _hash(key), challenge, mark))
        return Answer(found.products, signature).to_bytes()

    def decrypted(self, agreed: Agreed, message: bytes) -> bytes:
        """As the holder, the sum: of enough clients, each of whom is in it once, and unchanged.

        A message that is refused tells nothing, and the key is there for another one.
        """
        own, key, context = self._opened(agreed)
        answers, packed = read_proved(message, agreed)
        asked = Sum.from_bytes(packed, agreed)
        if len(asked.marks) < agreed.floor:
            raise ProtocolError(
                f"the sum of {len(asked.marks)} clients: {self.name} decrypts none of fewer than "
                f"{agreed.floor} (privacy.min_survivors, federation.min_clients)"
            )
        self._check_marks(agreed, asked, key)
        challenge = _challenge(own, key, hashlib.sha256(packed).digest())
        check_proved(agreed, key, challenge, asked, answers, self._verify)
        found = decrypted(private_context(context), asked.rows)
        # A key decrypts once, and an exchange is told once.
        run, moment = agreed.moment.run, agreed.moment
        self._store.save(run, Kept(self._store.load(run).decrypted))
        check_range(found, len(asked.marks))
        self._store.save(run, Kept(moment.exchange + 1))
        return plain_bytes(agreed, smudged(found.reshape(-1)[: agreed.size]))

    def _check_holder(self, agreed: Agreed) -> None:
        if agreed.holder != self.name:
            raise ProtocolError(
                f"{self.name} is asked for a key that {agreed.holder} holds (privacy.key_holder)"
            )

    def _check_marks(self, agreed: Agreed, asked: Sum, hashed: bytes) -> None:
        for place, mark in asked.marks.items():
            name = agreed.cohort[place]
            if not self._verify(name, mark.statement(agreed, hashed, asked.root), mark.signature):
                raise ProtocolError(
                    f"{name} did not sign that it is in this sum, with this key and after the "
                    "model that the others were sent; nothing is decrypted"
                )

    def _opened(self, agreed: Agreed) -> tuple[bytes, bytes, bytes]:
        """As the holder: the secret of challenges, the hash of the key, and all of it."""
        self._check_holder(agreed)
        moment = agreed.moment
        kept = self._store.load(moment.run)
        secret = kept.of(moment)
        if not secret or moment.exchange < kept.decrypted:
            raise ProtocolError(
                f"{self.name} has no key for exchange {moment.exchange}: it made none, or has used "
                "it; a key decrypts one sum"
            )
        own, context = _parts(secret)
        return own, _hash(self._message(agreed, secret)), context

    def _message(self, agreed: Agreed, secret: bytes) -> bytes:
        context = private_context(_parts(secret)[1])
        return PublicKey(public_bytes(context)).to_bytes(agreed, self._sign)


def _hash(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def _challenge(secret: bytes, key: bytes, summed: bytes) -> Challenge:
    return Challenge(summed, derive(secret, "encrypted sum challenge", key + summed))


def _parts(secret: bytes) -> tuple[bytes, bytes]:
    reader = Reader(secret, "the key of encrypted sums")
    return reader.blob(), reader.blob()
