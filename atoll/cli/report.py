"""`atoll report`: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.output import Format, FormatOption, emit, note

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; default report.html in the run."),
    ] = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Write a run's report: one HTML file with results, curves, clients and configuration.

    RUN is a run directory, finished or not. The page needs no network and no other file.
    """
    from atoll.report.write import write_report

    found, path = write_report(run, output)
    if output_format is Format.json:
        emit(
            {
                "run": str(run),
                "report": str(path),
                "finished": found.summary is not None,
                "rounds": len(found.rounds),
                "notes": list(found.notes),
            }
        )
        return
    for text in found.notes:
        note(f"Note: {text}.")
    how = ""
    if found.summary is None:
        done = found.rounds[-1].round if found.rounds else 0
        how = f" of a run that is not finished (after round {done})"
    typer.echo(f"Wrote {path}{how}; open it in a browser.")
