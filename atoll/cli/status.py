"""`atoll status`, `atoll stop`, `atoll logs`: a federation while it runs, and after."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit, note

if TYPE_CHECKING:
    from atoll.status import Standing

__all__ = ["logs", "show", "status", "stop"]

STEP = 0.5
"""Seconds between two looks for new lines."""
PLACE = "[RUN|STATE]"


def status(
    path: Annotated[
        Path | None, typer.Argument(metavar=PLACE, hidden=True, show_default=False)
    ] = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Print what a server or a site is doing: who is connected, where each one is, what went wrong.

    RUN is a run directory of `atoll server`, STATE the state folder of `atoll client`. Without
    either, the servers are shown that run now in runs/ of the current folder; as JSON, a list.
    """
    if path is not None:
        show(path, output_format)
        return
    from atoll.status import living

    found = living(Path())
    if output_format is Format.json:
        emit([_as_json(one) for one in found])
        return
    from atoll.cli.status_text import show_standing

    for one in found:
        show_standing(one)
    if not found:
        note("No server runs in runs/ of this folder; name a run directory or a state folder.")


def show(path: Path, output_format: Format) -> None:
    """Print the status of a run directory or a state folder."""
    from atoll.status import look

    found = look(path)
    if output_format is Format.json:
        emit(_as_json(found))
        return
    from atoll.cli.status_text import show_standing

    show_standing(found)


def stop(
    path: Annotated[Path, typer.Argument(metavar="RUN|STATE", hidden=True)],
) -> None:
    """Ask a server or a site to end, as Ctrl-C does, and wait until it has.

    RUN is a run directory of `atoll server`, STATE the state folder of `atoll client`. The same
    command as before goes on after all finished rounds.
    """
    from atoll.status import look, stop

    found = look(path)
    if stop(found, note=note):
        note(f"stopped; the log is {found.log}")
    else:
        note(f"nothing runs in {path}; it {_ended(found)}")


def logs(
    path: Annotated[Path, typer.Argument(metavar="RUN|STATE", hidden=True)],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the process has ended.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many to begin with.")
    ] = 20,
) -> None:
    """Print the last lines of a server's or a site's log.

    RUN is a run directory of `atoll server`, STATE the state folder of `atoll client`.
    """
    from atoll.status import look

    found = look(path)
    with found.log.open(encoding="utf-8", errors="replace") as log:
        typer.echo("".join(deque(log, maxlen=lines)), nl=False)
        while follow:
            last = not look(path).alive
            typer.echo(log.read(), nl=False)
            if last:
                return
            time.sleep(STEP)


def _as_json(found: Standing) -> dict[str, Any]:
    return {"path": str(found.path), "alive": found.alive, **found.status}


def _ended(found: Standing) -> str:
    state = str(found.status.get("state", ""))
    when = found.status.get("time")
    return f"was killed after {when}" if state == "running" else f"has {state} at {when}"
