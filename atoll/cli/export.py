"""`atoll export`: a finished run as a folder for others."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.process import load_torch
from atoll.report.words import bytes_text

if TYPE_CHECKING:
    from atoll.trained.export_run import Exported

__all__ = ["Precision", "export"]


class Precision(StrEnum):
    """Of a merged model's weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


ToleranceOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        show_default=False,
        help="Largest difference from the trained model's outputs, as a share of the largest; "
        "default 1e-4; weights rounded to bfloat16: 0.1.",
    ),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(show_default=False, help="Of a merged model; default: what the run computed in."),
]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", show_default=False, help="Folder to make.")
    ],
    merge: Annotated[
        bool, typer.Option("--merge", help="Write a whole model with the adapter in its weights.")
    ] = False,
    tolerance: ToleranceOption = None,
    dtype: PrecisionOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    output_format: FormatOption = Format.text,
) -> None:
    """Write a run's adapter, or a merged model, for use without Atoll.

    RUN is a run directory. Without --merge DIR holds the adapter, for PEFT or a few plain lines;
    with it, a whole model that transformers loads. Either has a model card with the lines to load
    it.

    What was written is loaded back, and its outputs are compared with the trained model's. DIR is
    there only if they agree.
    """
    if dtype is not None and not merge:
        raise click.UsageError("--dtype is of a merged model; add --merge")
    if tolerance is not None and not math.isfinite(tolerance):
        raise click.UsageError(f"--tolerance is {tolerance}; give a number such as 1e-4")
    load_torch()
    from atoll.trained.export_run import Terms, export_run

    terms = Terms(merge, tolerance, None if dtype is None else dtype.value, force)
    made = export_run(run, output, terms, note=note)
    if output_format is Format.json:
        emit({"run": str(run), "output": str(output), "merged": merge, **_facts(made)})
    else:
        typer.echo(_said(made, output, merged=merge))


def _facts(made: Exported) -> dict[str, Any]:
    found, quantised = made.verified, made.verified.quantised
    return {
        "dtype": made.dtype,
        "bytes": made.bytes,
        "rows": found.gap.rows,
        "made_up_rows": made.made_up,
        "largest_difference": found.gap.difference,
        "largest_output": found.gap.largest,
        "relative_difference": found.gap.relative,
        "tolerance": found.tolerance,
        "quantised_difference": None if quantised is None else quantised.relative,
    }


def _said(made: Exported, output: Path, *, merged: bool) -> str:
    what = f"a whole model in {made.dtype}" if merged else "the adapter"
    found, card = made.verified, output / "README.md"
    rows = f"{found.gap.rows} made-up rows" if made.made_up else f"{found.gap.rows} rows"
    lines = [
        f"{output} holds {what} ({bytes_text(made.bytes)}); {card} has the lines to load it.",
        f"Loaded back, its outputs on {rows} differ from the trained model's by at most "
        f"{found.gap.relative:.2g} of the largest (tolerance {found.tolerance:g}).",
    ]
    if found.quantised is not None:
        lines.append(
            "Its weights are plain ones; the quantised model that was trained rounds more, and "
            f"differs from it by at most {found.quantised.relative:.2g}."
        )
    return "\n".join(lines)
