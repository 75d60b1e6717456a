"""A client of encrypted sums, one of whom holds the key: bytes come, bytes go."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.agreed import TAGS, Agreed
from atoll.ckks.messages import Mark, PublicKey, Sum, plain_bytes
from atoll.ckks.packed import pack
from atoll.ckks.plain import check_sum, in_rows, smudged, tags
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
from atoll.secagg.keys import KEY, Signer, Verifier, common, private_key
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
        hashed, secret = hashlib.sha256(message).digest(), os.urandom(KEY)
        own, agreeing = private_key(secret)
        rows = in_rows(agreed, np.clip(flat, -1, 1))
        rows[:, :TAGS] = tags(agreed, common(own, found.agreeing), hashed)
        raw = pack(encrypted(public_context(found.context), rows))
        mark = Mark(agreeing, hashlib.sha256(raw.data).digest())
        signature = self._sign(mark.statement(agreed, hashed, root))
        return raw, Mark(mark.agreeing, mark.hashed, signature).to_bytes()

    def decrypted(self, agreed: Agreed, message: bytes) -> bytes:
        """As the holder, the sum: of enough clients, each of whom is in it once, and unchanged."""
        self._check_holder(agreed)
        run, moment = agreed.moment.run, agreed.moment
        kept = self._store.load(run)
        secret = kept.of(moment)
        if not secret or moment.exchange < kept.decrypted:
            raise ProtocolError(
                f"{self.name} has no key for exchange {moment.exchange}: it made none, or has used "
                "it; a key decrypts one sum"
            )
        asked = Sum.from_bytes(message, agreed)
        if len(asked.marks) < agreed.floor:
            raise ProtocolError(
                f"the sum of {len(asked.marks)} clients: {self.name} decrypts none of fewer than "
                f"{agreed.floor} (privacy.min_survivors)"
            )
        hashed = hashlib.sha256(self._message(agreed, secret)).digest()
        self._check_marks(agreed, asked, hashed)
        agreeing, context = _opened(secret)
        own = private_key(agreeing)[0]
        expected = sum(
            (tags(agreed, common(own, mark.agreeing), hashed) for mark in asked.marks.values()),
            np.zeros((agreed.rows, TAGS)),
        )
        found = decrypted(private_context(context), asked.rows)
        # A key decrypts once, and an exchange is told once.
        self._store.save(run, Kept(kept.decrypted))
        check_sum(found, expected, len(asked.marks))
        self._store.save(run, Kept(moment.exchange + 1))
        return plain_bytes(agreed, smudged(found[:, TAGS:].reshape(-1)[: agreed.size]))

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

    def _message(self, agreed: Agreed, secret: bytes) -> bytes:
        agreeing, context = _opened(secret)
        public = public_bytes(private_context(context))
        return PublicKey(private_key(agreeing)[1], public).to_bytes(agreed, self._sign)


def _opened(secret: bytes) -> tuple[bytes, bytes]:
    reader = Reader(secret, "the key of encrypted sums")
    return reader.blob(), reader.blob()
