"""The page of `--ui`, for as long as a command runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["paged"]


@contextmanager
def paged(kind: str, folder: Path, port: int | None, say: Callable[[str], None]) -> Iterator[None]:
    """Serve the page of a run directory ("server") or a state folder ("site"); None: no page.

    say: prints its address, which no log should have, and what goes wrong with it.

    Raises:
        ConfigError: when the port is taken.
    """
    if port is None:
        yield
        return
    from atoll.ui import run_view, served, site_view

    view = run_view(folder) if kind == "server" else site_view(folder)
    with served(view, port, note=say) as address:
        say(f"page of this {kind}, for whoever has its address: {address}")
        yield
