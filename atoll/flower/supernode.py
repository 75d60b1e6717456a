"""A site's SuperNode: `main` takes the arguments of `flower-supernode`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from atoll.flower.engine import watch_parent
from atoll.flower.options import shelf_in

__all__ = ["main"]

SOON = 0.05
"""Seconds between two looks for the answer to a message, in place of Flower's half second."""


def main(arguments: Sequence[str]) -> None:
    """Connect, until the process that started this one ends."""
    watch_parent()
    sys.argv = ["flower-supernode", *arguments]
    from flwr.supernode import fleet_http_connection, start_client_internal
    from flwr.supernode.cli import flower_supernode

    from atoll.flower.bodies import WholeRequest
    from atoll.flower.shelf import keep_on_disk

    keep_on_disk(shelf_in(Path(os.environ["FLWR_HOME"])))
    vars(fleet_http_connection)["NodeAuthHttpInterceptor"] = WholeRequest
    vars(start_client_internal)["time"] = SimpleNamespace(sleep=_sleep)
    flower_supernode()


def _sleep(seconds: float) -> None:
    """A letter of many pieces waits many times; who has no message at all waits as long as ever."""
    time.sleep(SOON if seconds < 1 else seconds)
