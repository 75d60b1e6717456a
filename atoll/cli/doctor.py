"""`atoll doctor`: whether this machine and installation can run experiments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.output import Format, FormatOption, emit
from atoll.cli.process import interruptible

if TYPE_CHECKING:
    from atoll.plan.doctor import Finding

__all__ = ["doctor"]

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    output_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where runs are to be written.", show_default=False)
    ] = Path("runs"),
    load: Annotated[
        bool, typer.Option("--load", help="Also load builtin:minilm and compute with it.")
    ] = False,
    output_format: FormatOption = Format.text,
) -> None:
    """Look at installation, cores, memory, disk, model and data, and say what to do.

    The exit code is 0 where nothing is a problem (warnings are none), else that of the error which
    a run would end with.
    """
    with interruptible():
        from atoll.plan.doctor import exit_code
        from atoll.plan.examine import examine

    found = []
    for one in examine(output_dir, load=load):
        found.append(one)
        if output_format is Format.text:
            _show(one)
    code = exit_code(found)
    if output_format is Format.json:
        checks = [one.as_dict() for one in found]
        emit({"ok": code == 0, "exit_code": code, "checks": checks})
    else:
        typer.echo(_verdict(found))
    raise typer.Exit(code)


def _show(one: Finding) -> None:
    state = typer.style(f"{one.state:8}", fg=COLOURS[one.state])
    typer.echo(f"{state} {one.check:9} {one.found}")
    if one.do:
        typer.echo(f"{'':18} -> {one.do}")


def _verdict(found: Sequence[Finding]) -> str:
    counts = {state: sum(one.state == state for one in found) for state in COLOURS}
    if counts["problem"]:
        many = "1 problem" if counts["problem"] == 1 else f"{counts['problem']} problems"
        return f"\n{many}: see the lines above."
    warned = f" ({counts['warning']} to know of)" if counts["warning"] else ""
    return f"\nAll is well{warned}. Try: atoll run quickstart"
