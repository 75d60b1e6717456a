"""`atoll data check`: rows as a run would read them, and what to know of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit
from atoll.errors import ConfigError, DataError

if TYPE_CHECKING:
    from atoll.config import Data
    from atoll.data import FederatedData, Partition

__all__ = ["check", "data"]

SHOWN = 15
"""Clients, labels and faults that are shown to people; JSON has them all."""
data = typer.Typer(
    help="Look at rows before anything trains on them.", no_args_is_help=True, rich_markup_mode=None
)


@data.command("check")
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", hidden=True)],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns", metavar="NAME=COLUMN", help="Rename a column, as text=body; once for each."
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="As data.partition: '{\"num_clients\": 10}'."),
    ] = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Check rows as a run would read them, and print their card.

    PATH is what data.path of an experiment file can be: a folder of clients, a folder or file of
    one data set, a hub id, or builtin:docstrings. Every fault of the files is told at once.

    The card counts what single clients have: it is for whoever has these rows. Nothing is written.
    """
    from atoll.data.remarks import remarks
    from atoll.data.report import report

    section = _section(path, columns or [], partition)
    divided = section.partition is not None or _clients(path)
    found = {"path": path, "divided": divided, **report(_loaded(section))}
    found["remarks"] = remarks(found)
    if output_format is Format.json:
        emit(found)
        return
    from atoll.cli.data_text import show_card

    show_card(found)


def _section(path: str, columns: Sequence[str], partition: str | None) -> Data:
    """The options as the section `data` of an experiment file, checked as there."""
    from pydantic import ValidationError

    from atoll.config import Experiment, schema
    from atoll.config.messages import problems

    given: dict[str, Any] = {"path": path, "columns": dict(_renamed(columns))}
    if partition is not None:
        try:
            given["partition"] = json.loads(partition)
        except ValueError as error:
            raise ConfigError(
                f"--partition is not JSON ({error}); write it as "
                "--partition '{\"num_clients\": 10}'"
            ) from None
    # The model is not looked at; an experiment has one.
    tree: Any = {"model": {"name_or_path": "builtin:minilm"}, "data": given}
    try:
        whole = json.dumps(tree)
        return Experiment.model_validate_json(whole, context={"folder": str(Path.cwd())}).data
    except ValidationError as error:
        found = problems(error, tree=tree, schema=schema())
        raise ConfigError("\n".join(one.sentence for one in found)) from None


def _renamed(columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    for one in columns:
        ours, found, theirs = one.partition("=")
        if not (ours and found and theirs):
            raise ConfigError(f"--columns is {one}; write NAME=COLUMN, as in --columns text=body")
        yield ours, theirs


def _loaded(section: Data) -> FederatedData:
    """The rows, read by the code that a run reads them with.

    Raises:
        DataError: with all faults of the files, where lines of them are to blame.
    """
    from atoll.data import load
    from atoll.data.faults import faults

    undivided = section.partition is None and not _clients(section.path)
    try:
        return load(
            section.path,
            partition=_whole if undivided else _partition(section),
            columns=section.columns,
            # One owner's rows are looked at as they are.
            holdout=0.0 if undivided else section.holdout,
        )
    except DataError as error:
        found = faults(section.path, columns=section.columns)
        if not found:
            raise
        told = [] if any(one.says(error) for one in found) else [str(error)]
        told += [one.told() for one in found]
        more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
        raise DataError("\n".join([*told[:SHOWN], *more])) from error


def _clients(path: str) -> bool:
    """Whether a path is a folder with a folder for each client."""
    from atoll.data.layout import split_files

    folder = Path(path).expanduser()
    return folder.is_dir() and not split_files(folder)


def _whole(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, list[int]]:
    return {"all rows": list(range(len(rows)))}


def _partition(section: Data) -> Partition | None:
    if section.partition is None:
        return None
    from atoll.config import resolve

    bound: Any = resolve(
        section.partition, package="atoll.data.partition", where=lambda key: "--partition"
    )
    made: Partition = bound()
    return made
