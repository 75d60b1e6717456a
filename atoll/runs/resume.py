"""Where a run goes on: after its last whole checkpoint, or from another run's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from atoll.core import Position, State
from atoll.errors import RunError
from atoll.experiment.setup import Setup
from atoll.runs.checkpoints import Checkpoint, latest, read, write
from atoll.runs.lines import RoundLine
from atoll.runs.run_dir import RunDirectory
from atoll.runtimes.store import damaged_state
from atoll.words import counted

__all__ = ["Progress", "forked", "progress", "started"]


@dataclass(frozen=True)
class Progress:
    """What a run has done: where it stands, a line for each round, and the seconds it took."""

    position: Position
    lines: tuple[RoundLine, ...] = ()
    seconds: float = 0.0


def progress(run: RunDirectory, setup: Setup, note: Callable[[str], None]) -> Progress | None:
    """Where the run in this directory stands; None where it has done no round.

    Raises:
        RunError: when its checkpoints or its rounds.jsonl cannot be read.
    """
    found = latest(run.checkpoints, note, lambda at: damaged_state(run.client_state, at.folded))
    if found is None:
        # The first round is written down before its checkpoint, a later one after another's.
        if len(run.rounds()) > 1:
            raise RunError(
                f"{run.checkpoints} holds no checkpoint, though {run.path}/rounds.jsonl has rounds "
                "that were run; put it back, set output_dir to a new directory, or remove "
                f"{run.path} to run the experiment from its beginning"
            )
        return None
    done = found.position.round
    try:
        metric = setup.bench.objective.metric.name
        lines = tuple(_line(line, metric) for line in run.rounds()[: done + 1])
    except (KeyError, TypeError):  # JSON, and no lines of a run.
        lines = ()
    if [line.round for line in lines] != list(range(done + 1)):
        raise RunError(
            f"{run.path}/rounds.jsonl does not hold the {counted(done + 1, 'round')} that were run "
            f"before checkpoint round-{done}; put it back, or remove {run.path} to run the "
            "experiment from its beginning"
        )
    return Progress(found.position, lines, found.seconds)


def started(run: RunDirectory, setup: Setup, note: Callable[[str], None]) -> Setup:
    """The setup with the run's own first state: one that came from elsewhere is kept.

    Raises:
        RunError: when that state is damaged.
    """
    kept = run.checkpoints / "start"
    if kept.exists():
        read(kept)  # damaged, it is told now
        return replace(setup, begin=lambda: read(kept).position)
    if setup.forked_from is not None or setup.experiment.adapter.name_or_path is not None:
        write(kept, Checkpoint(setup.start))
    if setup.forked_from is not None:
        note("starting anew from round {round} of {run}".format(**setup.forked_from))
    return setup


def _line(line: Mapping[str, Any], metric: str) -> RoundLine:
    named = {**line, "metric": line[metric]}
    return RoundLine(**{field.name: named[field.name] for field in fields(RoundLine)})


def forked(setup: Setup, source: Path, note: Callable[[str], None]) -> Setup:
    """The setup with the adapter and head of another run's last checkpoint as its start.

    Raises:
        RunError: when there is no checkpoint, or it does not fit this experiment's model.
    """
    found = latest(source / "checkpoints", note)
    if found is None:
        raise RunError(
            f"{source} has no checkpoint to start from; it has one after its first round"
        )
    state = dict(setup.start.server)
    for part in ("adapter", "head"):
        if part in state:
            state[part] = _fitting(state, found.position.server, part, source)
    origin = {"run": str(source.absolute()), "round": found.position.round}
    first = Position(state)
    return replace(setup, begin=lambda: first, forked_from=origin)


def _fitting(state: State, other: State, part: str, source: Path) -> dict[str, Any]:
    own, found = state[part], other.get(part, {})
    for name, value in own.items():
        if name not in found or found[name].shape != value.shape:
            has = f"has {tuple(found[name].shape)}" if name in found else "has none"
            raise RunError(
                f"{name} is {tuple(value.shape)} in this experiment, and the checkpoint of "
                f"{source} {has}; a fork keeps model and adapter as they are"
            )
    return {name: found[name].to(value.dtype) for name, value in own.items()}
