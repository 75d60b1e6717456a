"""What the experiment file's `privacy` section comes to, for the clients that there are."""

from atoll.protection.parties import Parties, simulated
from atoll.protection.planned import protection_of, rows_of, whole
from atoll.protection.protection import Protection
from atoll.protection.quorum import check_quorum, check_usual
from atoll.protection.rows import RowProtection
from atoll.protection.securing import secured, securing_of
from atoll.protection.spread import Spread

__all__ = [
    "Parties",
    "Protection",
    "RowProtection",
    "Spread",
    "check_quorum",
    "check_usual",
    "protection_of",
    "rows_of",
    "secured",
    "securing_of",
    "simulated",
    "whole",
]
