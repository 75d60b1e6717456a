"""Encrypted sums of a few silos, one of whom holds the key that decrypts them (CKKS)."""

from atoll.ckks.agreed import MOST_VALUES, Agreed, rows_of
from atoll.ckks.challenge import ANSWER, CHALLENGE, Answer, Challenge, products, proved
from atoll.ckks.library import check_installed
from atoll.ckks.messages import (
    MARK,
    MOST_KEY,
    USUAL_KEY,
    Mark,
    PublicKey,
    Sum,
    plain_size,
    read_plain,
    sum_size,
)
from atoll.ckks.packed import reduced, size_of, unpack
from atoll.ckks.plain import STEP
from atoll.ckks.scheme import MOST_CLIENTS
from atoll.ckks.silo import Silo
from atoll.ckks.store import Folder, Held, Store

__all__ = [
    "ANSWER",
    "CHALLENGE",
    "MARK",
    "MOST_CLIENTS",
    "MOST_KEY",
    "MOST_VALUES",
    "STEP",
    "USUAL_KEY",
    "Agreed",
    "Answer",
    "Challenge",
    "Folder",
    "Held",
    "Mark",
    "PublicKey",
    "Silo",
    "Store",
    "Sum",
    "check_installed",
    "plain_size",
    "products",
    "proved",
    "read_plain",
    "reduced",
    "rows_of",
    "size_of",
    "sum_size",
    "unpack",
]
