"""What the experiment file's `privacy` section comes to, for the clients that there are."""

from atoll.protection.planned import protection_of
from atoll.protection.protection import Protection
from atoll.protection.securing import Parties, secured, securing_of, simulated

__all__ = [
    "Parties",
    "Protection",
    "protection_of",
    "secured",
    "securing_of",
    "simulated",
]
