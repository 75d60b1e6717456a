"""What privacy was spent on a data set, over all runs: written down before anything is released."""

from atoll.ledger.ledger import Ledger
from atoll.ledger.lines import Entry
from atoll.ledger.read import Told, verified

__all__ = ["Entry", "Ledger", "Told", "verified"]
