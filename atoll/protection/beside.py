"""How long what is said beside masked vectors may be, and how much it is in all."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atoll.secagg import Configuration, Kind, bytes_of, most_bytes

__all__ = ["room_of", "said_beside"]

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


def room_of(step: str, owns: Sequence[Configuration]) -> int:
    """Bytes of the longest answer to a step."""
    return max(most_bytes(KINDS[step], own) for own in owns) if step in KINDS else 0
