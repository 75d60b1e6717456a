"""What people see of a federation's processes while they run: a file that is whole, and a log."""

from atoll.status.board import Board, utc
from atoll.status.site import Doing
from atoll.status.standing import SERVER, SITE, Kind, Standing, find, living, look
from atoll.status.stopping import stop

__all__ = [
    "SERVER",
    "SITE",
    "Board",
    "Doing",
    "Kind",
    "Standing",
    "find",
    "living",
    "look",
    "stop",
    "utc",
]
