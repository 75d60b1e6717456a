"""`atoll run`: an experiment from its file to its run directory."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.packaged import find_recipe
from atoll.cli.process import load_torch
from atoll.errors import ConfigError, RunError

if TYPE_CHECKING:
    from atoll.config import Loaded
    from atoll.experiment.standing import Standing

__all__ = ["located", "run"]


def run(
    experiment: Annotated[str, typer.Argument(metavar="FILE|RECIPE", hidden=True)],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", hidden=True)
    ] = None,
    fork: Annotated[
        bool,
        typer.Option("--fork", help="Start anew, beside the run in output_dir, from its model."),
    ] = False,
    output_format: FormatOption = Format.text,
) -> None:
    """Train, compare, and write a run directory.

    FILE is an experiment file, RECIPE one of `atoll recipes`. KEY=VALUE sets any key of the file,
    as in federation.num_rounds=5.

    Relative paths, in the file too, start from the folder in which the command is typed.

    A run that was stopped, however it was, goes on after its last finished round when the same
    command is given again. A finished run shows its result and changes nothing; with a larger
    federation.num_rounds it goes on.
    """
    from atoll.config import load

    with located(experiment) as path:
        loaded = load(path, overrides=values or [])
    # A wrong file is told at once; torch takes seconds.
    load_torch()
    place = _place(loaded, fork=fork)
    again = place.standing.state == "finished"
    folder = place.folder
    if again:
        summary = place.standing.summary or {}
        note(_finished(place, summary["num_rounds"]))
        _drawn(folder)
    else:
        summary = _run(place)
    if output_format is Format.json:
        emit({"run": str(folder), "already_finished": again, **summary})
        return
    from atoll.cli.summary_text import show_run

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


@dataclass(frozen=True)
class _Place:
    """Where a run is to be written, what stands there, and the run that it is a fork of."""

    loaded: Loaded
    folder: Path
    standing: Standing
    origin: Path | None = None


def _place(loaded: Loaded, *, fork: bool) -> _Place:
    """The run directory; a fork's is the first free one, or its own where it goes on.

    Raises:
        RunError: when the directory holds another experiment, or nothing that could be forked.
    """
    from atoll.config import dump
    from atoll.experiment.standing import no_run, other_run, standing

    folder = Path(loaded.experiment.output_dir).expanduser()
    found = standing(folder, dump(loaded.experiment))
    if not fork:
        if found.state == "other":
            raise RunError(
                f"{other_run(folder, found.changes)}, or add --fork to start anew from its last "
                "checkpoint"
            )
        return _Place(loaded, folder, found)
    if found.state == "new":
        raise RunError(f"--fork starts from the run in {folder}, but there is none; leave it out")
    for number in itertools.count(2):
        beside = folder.with_name(f"{folder.name}-{number}")
        if no_run(beside):
            continue
        changed = loaded.experiment.model_copy(update={"output_dir": str(beside)})
        found = standing(beside, dump(changed))
        if found.state != "other":
            break
    return _Place(replace(loaded, experiment=changed), beside, found, folder)


def _finished(place: _Place, rounds: int) -> str:
    """That there is nothing to do, and how to go on all the same."""
    found = f"This run is finished; its result stands in {place.folder}."
    if rounds == place.loaded.experiment.federation.num_rounds:
        return f"{found} Set output_dir to run it anew, or a larger federation.num_rounds to go on."
    return (
        f"{found} It stopped early, after round {rounds}, as evaluate.patience says, and more "
        "rounds do not change that. Set output_dir to run it anew, or add --fork to go on from "
        "its model."
    )


def _drawn(folder: Path) -> None:
    """Draw the report of a run that was stopped while it was drawn."""
    from atoll.disk.files import sweep
    from atoll.disk.lock import alone
    from atoll.report.read import REPORT
    from atoll.report.write import try_report

    if not (folder / REPORT).is_file():
        with alone(folder):
            sweep(folder)
            try_report(folder, note=note)


def _run(place: _Place) -> dict[str, Any]:
    from rich.console import Console

    from atoll.cli.display import Display
    from atoll.experiment.setup import prepare
    from atoll.report.write import try_report
    from atoll.runs.resume import forked
    from atoll.runs.run import run_experiment
    from atoll.runs.where import Observer

    standing = place.standing
    with Display(Console(stderr=True)) as display:
        setup = prepare(place.loaded, note=display.note, machine=standing.machine)
        if place.origin is not None:
            setup = forked(setup, place.origin, display.note)
        if standing.changes:
            display.note(f"more rounds than before: {standing.changes}")
        display.begin(setup)
        watch = Observer(display.note, display.step, display.resumed, display.round)
        try:
            summary = run_experiment(setup, place.folder, watch)
            try_report(place.folder, note=display.note)
            return summary
        except KeyboardInterrupt:
            display.note(f"stopped; {place.folder} keeps all finished rounds: the same command "
                         "goes on after them")  # fmt: skip
            raise
