"""Encrypted sums of four clients, one question after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from atoll.ckks import Agreed, Answer, Held, Mark, Silo, Store, Sum, proved, reduced, unpack
from atoll.ckks.packed import pack
from atoll.secagg import Channel, Identity, Moment, roster_verifier

NAMES = ("ada", "bob", "cy", "dee")
IDENTITIES = {name: Identity.new() for name in NAMES}
VERIFY = roster_verifier({name: one.public for name, one in IDENTITIES.items()})
CHANNELS = (Channel("update", 3000, 2.0, 25), Channel("weight", 1, 512.0, 25))
ROOT = bytes(range(32))

Sent = dict[str, tuple[NDArray[np.uint64], Mark]]


def agreed_on(exchange: int = 1, attempt: int = 0, **told: object) -> Agreed:
    moment = Moment("run", 1, exchange, attempt)
    return replace(Agreed(moment, NAMES, "ada", 3, CHANNELS), **told)


def silo(name: str, store: Store | None = None) -> Silo:
    return Silo(name, IDENTITIES[name].sign, VERIFY, store or Held())


def values_of(name: str) -> dict[str, NDArray[np.float64]]:
    draw = np.random.default_rng(ord(name[0]))
    return {"update": draw.uniform(-2, 2, 3000), "weight": np.array([float(ord(name[0]))])}


def sent_by(agreed: Agreed, key: bytes, names: tuple[str, ...] = NAMES, root: bytes = ROOT) -> Sent:
    found = {}
    for name in names:
        raw, mark = silo(name).encrypted(agreed, key, root, values_of(name))
        found[name] = (unpack(raw, agreed.rows), Mark.from_bytes(mark))
    return found


def total_of(sent: Sent) -> NDArray[np.uint64]:
    return np.sum([rows for rows, _ in sent.values()], axis=0, dtype=np.uint64)


def message_of(agreed: Agreed, sent: Sent, rows: NDArray[np.uint64] | None = None) -> bytes:
    marks = {agreed.place(name): mark for name, (_, mark) in sent.items()}
    total = total_of(sent) if rows is None else rows
    return Sum(ROOT, marks, reduced(total)).to_bytes(agreed)


def challenged(agreed: Agreed, holder: Silo, message: bytes) -> bytes:
    return holder.challenge(agreed, agreed.digest + hashlib.sha256(message).digest())


def answers_of(agreed: Agreed, key: bytes, sent: Sent, challenge: bytes) -> dict[int, Answer]:
    return {
        agreed.place(name): Answer.from_bytes(silo(name).answer(agreed, key, pack(rows), challenge))
        for name, (rows, _) in sent.items()
    }


def opened(
    agreed: Agreed, holder: Silo, sent: Sent, message: bytes | None = None,
    answers: Mapping[int, Answer] | None = None,
) -> bytes:  # fmt: skip
    """What the holder tells of a message, whose challenge all that sent something answer."""
    message = message_of(agreed, sent) if message is None else message
    if answers is None:
        challenge = challenged(agreed, holder, message)
        answers = answers_of(agreed, holder.key(agreed), sent, challenge)
    return holder.decrypted(agreed, proved(answers, message))
