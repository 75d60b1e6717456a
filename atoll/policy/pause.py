"""The site's stop switch: a file in the client's state folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PAUSED", "paused"]

PAUSED = "paused"
"""Its name; what it holds does not matter."""


def paused(state: Path) -> bool:
    """Whether the site has paused; a folder that cannot be looked into counts as paused."""
    try:
        (state / PAUSED).lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
