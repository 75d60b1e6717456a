"""The front door: Ctrl-C is heard before anything else is imported."""

from __future__ import annotations

import sys

from atoll.cli.process import interruptible, settle

__all__ = ["main"]


def main() -> None:
    """The `atoll` command."""
    with interruptible():
        settle()
        from atoll.cli.app import guarded
    sys.exit(guarded(sys.argv[1:]))
