"""A site's SuperNode: `main` takes the arguments of `flower-supernode`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from atoll.flower.engine import watch_parent

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Connect, until the process that started this one ends."""
    watch_parent()
    sys.argv = ["flower-supernode", *arguments]
    from flwr.supernode.cli import flower_supernode

    flower_supernode()
