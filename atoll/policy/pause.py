"""The site's stop switch: a file in the client's state folder."""

from __future__ import annotations

from pathlib import Path

from atoll.disk.files import make_folder, write_text

__all__ = ["PAUSED", "pause", "paused", "resume"]

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


def pause(state: Path) -> None:
    """Pause the site; a client that starts later is paused, too."""
    make_folder(state)
    write_text(state / PAUSED, "")


def resume(state: Path) -> None:
    """Go on."""
    (state / PAUSED).unlink(missing_ok=True)
