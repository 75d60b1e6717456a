"""The matrix mechanism: noise that one round takes back from the last ones."""

from atoll.matrix.blt import Blt, error, sensitivity
from atoll.matrix.mechanism import ROUND, Mechanism, mechanism
from atoll.matrix.participation import Participation, in_turns
from atoll.matrix.tables import Strategy, strategy

__all__ = [
    "ROUND",
    "Blt",
    "Mechanism",
    "Participation",
    "Strategy",
    "error",
    "in_turns",
    "mechanism",
    "sensitivity",
    "strategy",
]
