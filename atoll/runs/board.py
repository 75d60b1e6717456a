"""A federation's progress on a board, beside wherever else it is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from atoll.disk.files import make_folder
from atoll.disk.lock import alone
from atoll.experiment.setup import Setup
from atoll.runs.lines import RoundLine
from atoll.runs.quiet import Quiet
from atoll.runs.where import Observer
from atoll.status import SERVER, Board
from atoll.words import counted

__all__ = ["Show", "on_board"]

Show = Callable[[Callable[[], Mapping[str, Any]]], None]
"""Has what a function gives stand on the board, too."""


@dataclass
class _Progress:
    """Rounds that are done, of how many, and what is being done: (what, parts done, parts)."""

    rounds: int
    round: int | None = None
    metric: str = "metric"
    doing: dict[str, Any] | None = None


@contextmanager
def on_board(folder: Path, rounds: int, observer: Observer) -> Iterator[tuple[Observer, Show]]:
    """Hold a run's federation, and tell of it there: what `observer` hears, and what is shown.

    It hears something every ten seconds, whatever is being done.

    Raises:
        RunError: when another server holds it.
    """
    home = folder / "federation"
    make_folder(home)
    progress = _Progress(rounds)
    refusal = f"another `atoll server` runs in {folder}; wait for its end, or `atoll stop` it"
    with alone(home, refusal), Board(home, SERVER) as board:

        def show(facts: Callable[[], Mapping[str, Any]]) -> None:
            board.show(lambda: {**asdict(progress), **facts()})

        def note(text: str) -> None:
            board.note(text)
            observer.note(text)

        with Quiet(lambda: _at_work(progress), note) as quiet:
            yield _watched(replace(observer, note=note), board, progress, quiet), show


def _at_work(progress: _Progress) -> str:
    doing = progress.doing
    if doing is None:
        return "at work: loading what is needed, or writing what was done"
    return f"at work on {doing['what']}: {doing['done']} of {doing['total']}"


def _watched(observer: Observer, board: Board, progress: _Progress, quiet: Quiet) -> Observer:

    def note(text: str) -> None:
        quiet.ends()
        observer.note(text)

    def step(what: str, done: int, total: int) -> None:
        progress.doing = {"what": what, "done": done, "total": total}
        observer.step(what, done, total)

    def resumed(lines: Sequence[RoundLine]) -> None:
        progress.round = lines[-1].round
        observer.resumed(lines)

    def began(setup: Setup) -> None:
        progress.metric = setup.bench.objective.metric.name
        observer.began(setup)

    def finished(line: RoundLine) -> None:
        quiet.ends()
        progress.round, progress.doing = line.round, None
        board.note(_words(line, progress))
        observer.round(line)

    return replace(observer, note=note, step=step, resumed=resumed, began=began, round=finished)


def _words(line: RoundLine, progress: _Progress) -> str:
    parts = [f"round {line.round}/{progress.rounds} is done"]
    parts += [f"{counted(line.clients, 'client')} trained"] if line.clients else []
    parts += [] if line.loss is None else [f"loss {line.loss:.4g}"]
    parts += [] if line.metric is None else [f"{progress.metric} {line.metric:.4g}"]
    return ", ".join([*parts, f"{line.bytes_up:,} bytes up, {line.bytes_down:,} bytes down"])
