"""`atoll predict`: new rows in, labels or text out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.process import load_torch

if TYPE_CHECKING:
    from atoll.trained.load_run import TrainedRun

__all__ = ["predict"]


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    text: Annotated[list[str] | None, typer.Option(help="A text; may be repeated.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="An image; may be repeated.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE|-", help="JSONL, CSV or Parquet; -: lines of stdin."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSONL file to write.")] = None,
    top: Annotated[
        int,
        typer.Option(
            min=1, show_default=False, help="Guesses to show the probability of; default 3."
        ),
    ] = 3,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, show_default=False, help="Length of generated text; default 64.")
    ] = 64,
    output_format: FormatOption = Format.text,
) -> None:
    """Label new rows, tag or fill in their words, or generate text for them.

    RUN is a run directory. Rows have a `text`; where text is generated, a `prompt`, an
    `instruction` or `messages` do as well, and a `text` is asked as the rows of training were.
    Words are tagged from `tokens`, or a `text` split at white space; an `image` is a path that
    starts from the file of rows; vectors are made of a `text`, an `image`, or both. Each row comes
    back as one line of JSON with what was predicted.

    Without --text, --image and --input rows are read from standard input: JSON objects, or plain
    texts where the first line is no object.
    """
    given = sum(map(bool, (text, image, source)))
    if given > 1 or (not given and sys.stdin.isatty()):
        raise click.UsageError('give one of --text "...", --image FILE and --input FILE')
    load_torch()
    from atoll.cli.rows import given_rows
    from atoll.trained.load_run import load_run

    trained = load_run(run, note=note)
    typed = [*({"text": one} for one in text or ()), *({"image": one} for one in image or ())]
    rows = given_rows(typed, source, trained)
    found = list(_predictions(trained, rows, top=top, max_new_tokens=max_new_tokens))
    _write(found, output, {"run": str(run)} if output_format is Format.json else None)


def _write(
    found: list[dict[str, Any]], output: Path | None, document: dict[str, Any] | None
) -> None:
    """JSON lines to a file or stdout; a document on stdout where one was asked for."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    if output is not None:
        from atoll.disk.files import write_text

        write_text(output, lines)
        note(f"Wrote {len(found)} rows to {output}")
    if document is not None:
        emit({**document, "output": str(output) if output else None, "predictions": found})
    elif output is None:
        typer.echo(lines, nl=False)


def _predictions(
    trained: TrainedRun, rows: list[dict[str, Any]], *, top: int, max_new_tokens: int
) -> Iterator[dict[str, Any]]:
    from atoll.tasks import task_of
    from atoll.trained.predict import generate
    from atoll.trained.readings import readings

    if task_of(trained.setup.experiment).read is None:
        texts = generate(trained, rows, max_new_tokens=max_new_tokens)
        yield from ({**row, "generated": made} for row, made in zip(rows, texts, strict=True))
        return
    for row, found in zip(rows, readings(trained, rows, top=top), strict=True):
        # Pixels and bytes have no place in JSON.
        written = {name: value for name, value in row.items() if name != "image" or _is_text(value)}
        yield {**written, **found}


def _is_text(value: object) -> bool:
    return isinstance(value, str)
