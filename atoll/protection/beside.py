"""How long what is said beside hidden vectors may be, and how much it is in all."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atoll.ckks import (
    ANSWER,
    CHALLENGE,
    MOST_KEY,
    USUAL_KEY,
    Agreed,
    plain_size,
    sum_size,
)
from atoll.secagg import Configuration, Kind, bytes_of, most_bytes
from atoll.secagg.keys import KEY
from atoll.secagg.wire import NUMBER

__all__ = ["room_of", "said_beside", "said_encrypted"]

KINDS = {"advert": Kind.ADVERT, "shares": Kind.SHARES, "signature": Kind.SIGNATURE,
         "opening": Kind.OPENING}  # fmt: skip


def said_beside(owns: Sequence[Configuration]) -> tuple[int, int]:
    """Bytes up and down of all steps, if nobody drops out; masked vectors are not among them."""
    number = torch.tensor(0).nbytes
    clients = sum(len(own.cohort) for own in owns)
    up = sum(room_of(step, owns) + number for step in KINDS) * clients
    down = (len(KINDS) + 1) * number * clients
    for own in owns:
        everyone, near = len(own.cohort), own.neighbours
        told = {Kind.ADVERTS: everyone, Kind.INBOX: near, Kind.SURVIVORS: everyone,
                Kind.SIGNATURES: own.signers}  # fmt: skip
        down += everyone * sum(bytes_of(kind, own, items) for kind, items in told.items())
    return up, down


def said_encrypted(agreed: Agreed) -> tuple[int, int]:
    """Bytes up and down of all steps, to a few hundred, if nobody drops out; ciphertexts of clients
    are not among them."""
    number, clients = torch.tensor(0).nbytes, len(agreed.cohort)
    up = MOST_KEY + CHALLENGE + plain_size(agreed) + clients * ANSWER + (clients + 3) * number
    proof = NUMBER + clients * (NUMBER + ANSWER)
    down = clients * (USUAL_KEY + CHALLENGE) + 2 * KEY + proof + sum_size(agreed)
    return up, down + (2 * clients + 3) * number


def room_of(step: str, owns: Sequence[Configuration]) -> int:
    """Bytes of the longest answer to a step."""
    return max(most_bytes(KINDS[step], own) for own in owns) if step in KINDS else 0
