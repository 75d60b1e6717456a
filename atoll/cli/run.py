"""`atoll run`: an experiment from its file to its run directory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.packaged import find_recipe
from atoll.cli.process import load_torch
from atoll.errors import ConfigError

if TYPE_CHECKING:
    from atoll.config import Loaded

__all__ = ["located", "run"]


def run(
    experiment: Annotated[str, typer.Argument(metavar="FILE|RECIPE", hidden=True)],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", hidden=True)
    ] = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Train, compare, and write a run directory.

    FILE is an experiment file, RECIPE one of `atoll recipes`. KEY=VALUE sets any key of the file,
    as in federation.num_rounds=5.

    Relative paths, in the file too, start from the folder in which the command is typed.

    A finished run that is started again shows its result and changes nothing.
    """
    from atoll.config import dump, load

    with located(experiment) as path:
        loaded = load(path, overrides=values or [])
    # A wrong file is told at once; torch takes seconds.
    load_torch()
    from atoll.experiment.run_dir import finished

    folder = Path(loaded.experiment.output_dir).expanduser()
    summary = finished(folder, dump(loaded.experiment))
    again = summary is not None
    if summary is None:
        summary = _run(loaded, folder)
    else:
        note(f"This run is finished; its result stands in {folder}. Set output_dir to run it anew.")
    if output_format is Format.json:
        emit({"run": str(folder), "already_finished": again, **summary})
        return
    from atoll.cli.report import show_run

    data = json.loads((folder / "run.json").read_text(encoding="utf-8"))["data"]
    show_run(summary, folder, common_test=data["test"] is not None)


@contextlib.contextmanager
def located(name: str) -> Iterator[Path]:
    """A file of that name, else the recipe.

    Raises:
        ConfigError: when there is neither, and the name is not that of a file.
    """
    path = Path(name)
    if path.is_file() or path.suffix or len(path.parts) > 1:
        yield path
        return
    try:
        recipe = find_recipe(name)
    except ConfigError as error:
        if path.exists():  # What is there is no file; reading it says so.
            yield path
            return
        raise ConfigError(f"there is no file {name} here, and {error}") from None
    with as_file(recipe) as packaged:
        yield packaged


def _run(loaded: Loaded, folder: Path) -> dict[str, Any]:
    from rich.console import Console

    from atoll.cli.display import Display
    from atoll.experiment.run import Observer, run_experiment
    from atoll.experiment.setup import prepare

    with Display(Console(stderr=True)) as display:
        setup = prepare(loaded, note=display.note)
        display.begin(setup)
        watch = Observer(display.note, display.step, display.round)
        return run_experiment(setup, folder, watch)
