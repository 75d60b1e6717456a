"""From a run directory to report.html."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from atoll.disk.files import write_text
from atoll.report.page import page
from atoll.report.read import REPORT, RunFiles, read_run

__all__ = ["try_report", "write_report"]


def write_report(path: Path, output: Path | None = None) -> tuple[RunFiles, Path]:
    """Draw the report of the run in `path`; `output` is report.html there unless named.

    Raises:
        RunError: when a file of the run is damaged, or the report cannot be written.
    """
    run = read_run(path)
    output = path / REPORT if output is None else output
    write_text(output, page(run))
    return run, output


def try_report(path: Path, *, note: Callable[[str], None]) -> None:
    """Draw the report of a run that has just ended; what keeps it from being drawn is a note."""
    try:
        write_report(path)
    except Exception as error:  # A run is not lost to its drawing, whatever is wrong with that.
        note(f"{path / REPORT} was not written: {error}; `atoll report {path}` tries again")
