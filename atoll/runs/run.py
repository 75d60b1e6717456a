"""An experiment from its first exchange to its summary; the loop itself is `atoll.round`."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atoll.artifacts.card import model_card
from atoll.artifacts.export import export_adapter
from atoll.core import Position, State
from atoll.disk.files import make_folder, write_text
from atoll.disk.lock import alone
from atoll.experiment.setup import Setup
from atoll.experiment.trackers import Tracking, tracking
from atoll.local.bench import model_values
from atoll.runs.account import Account, account_of
from atoll.runs.budget import check_plan
from atoll.runs.checkpoints import Checkpoint, save_best, save_round, tidy
from atoll.runs.compare import Arm, Comparison
from atoll.runs.gate import check_finite, examined
from atoll.runs.lines import RoundLine, public, round_line, troubles
from atoll.runs.origin import origin_of
from atoll.runs.resume import Progress, progress, started
from atoll.runs.rounds import Under, reports
from atoll.runs.run_dir import RunDirectory, begin
from atoll.runs.selection import best_round, chosen, stalled
from atoll.runs.summary import summarize
from atoll.runs.where import HERE, Observer, Where

__all__ = ["federated", "run_experiment"]


def run_experiment(
    setup: Setup, output_dir: Path, observer: Observer, where: Where = HERE
) -> dict[str, Any]:
    """Run all rounds and baselines, write the run directory, and return the summary.

    Raises:
        AtollError: when too few clients answer, or a file cannot be written.
    """
    rounds = federated(setup, output_dir, observer, where)
    while True:
        try:
            next(rounds)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def federated(
    setup: Setup, output_dir: Path, observer: Observer, where: Where = HERE
) -> Generator[RoundLine, None, dict[str, Any]]:
    """A run, round by round; after the last one it trains the baselines and returns the summary.

    An unfinished run of this experiment in `output_dir` goes on after its last checkpoint, also one
    whose generator was left.
    """
    begun = time.perf_counter()
    make_folder(output_dir)
    with alone(output_dir):
        run = RunDirectory(output_dir)
        done = progress(run, setup, observer.note)
        origin = origin_of(setup, run)
        check_plan(setup, run, origin.releases, observer.note)
        begin(run, setup, 0 if done is None else len(done.lines), origin.told())
        setup = started(run, setup, observer.note)
        done = done or Progress(setup.start)
        if done.lines:
            tidy(run.checkpoints, done.position.round)
            observer.note(f"going on after round {done.position.round} in {output_dir}")
            observer.resumed(done.lines)
        begun -= done.seconds
        first = done.position.round + 1
        with (
            # It stays open, and a state is as large as the model.
            account_of(setup, run, replace(done.position, server={})) as account,
            tracking(
                setup.experiment, output_dir, note=observer.note, first_round=first
            ) as tracked,
        ):
            rounds = _rounds(setup, run, done, Under(observer, where, account))
            for done in rounds:
                line = done.lines[-1]
                # A round whose checkpoint is lost is told again, one that counts is always told.
                tracked.log_round(public(setup, line))
                save_round(run.checkpoints, Checkpoint(done.position, time.perf_counter() - begun))
                account.counted(done.position)
                observer.round(line)
                yield line
            return _finish(setup, run, done, observer, _Ending(where, tracked, begun, account))


def _rounds(setup: Setup, run: RunDirectory, done: Progress, under: Under) -> Iterator[Progress]:
    """The rounds after those that are `done`, each with its line in rounds.jsonl.

    A round counts when its checkpoint is written, which is for the caller to do.
    """
    lines, note, account = list(done.lines), under.observer.note, under.account
    if stalled(setup, lines) or _stops(setup, done.position, under):
        return
    told = reports(setup, run.path, done.position, under)
    del done  # as above: no state is kept beside that of now
    for report, seconds in told:
        account.happened(report)
        check_finite(model_values(report.position.server), f"round {report.round}: the model")
        line = round_line(setup, report, seconds, account.epsilon())
        lines.append(line)
        run.add_round(public(setup, line))
        for said in troubles(report, secret=line.clients is None):
            note(f"round {line.round}: {said}")
        if setup.experiment.evaluate.load_best and best_round(setup, lines) == line.round:
            save_best(run.checkpoints, Checkpoint(report.position))
        yield Progress(report.position, tuple(lines))
        if stalled(setup, lines) or _stops(setup, report.position, under):
            return


def _stops(setup: Setup, position: Position, under: Under) -> bool:
    """Whether a run that has released something ends for its budget, where it stands."""
    if not 0 < position.round < setup.experiment.federation.num_rounds:
        return False
    budget = under.account.stops(position)
    if budget is not None:
        under.observer.note(
            f"round {position.round}: one more would spend more than {budget}; stopped"
        )
    return budget is not None


@dataclass(frozen=True)
class _Ending:
    """What the end of a run needs beside the run; begun: on the clock of `perf_counter`."""

    where: Where
    tracked: Tracking
    begun: float
    account: Account


def _finish(
    setup: Setup,
    run: RunDirectory,
    done: Progress,
    observer: Observer,
    ending: _Ending,
) -> dict[str, Any]:
    """Baselines, and all that the run directory holds of the end."""
    if stalled(setup, done.lines):
        observer.note(f"round {done.position.round}: no better for "
                      f"{setup.experiment.evaluate.patience} evaluations; stopped")  # fmt: skip
    state: State = chosen(setup, run, done, observer.note)
    lines = done.lines
    # Hours of work: they are kept before the baselines begin, whatever becomes of those.
    unmeasured = Comparison(Arm((), {}))
    privacy = ending.account.statement()
    seconds = time.perf_counter() - ending.begun
    so_far = summarize(setup, unmeasured, lines=lines, seconds=seconds, privacy=privacy)
    export_adapter(setup, state, run.adapter, so_far)
    found = examined(setup, state, run.adapter, so_far["num_rounds"])
    for warning in found.warnings():
        observer.note(warning)
    best = setup.experiment.evaluate.load_best
    rounds = so_far["best_round"] if best else lines[-1].round
    comparison = ending.where.compared(setup, state, rounds, observer)
    seconds = time.perf_counter() - ending.begun
    summary = summarize(setup, comparison, lines=lines, seconds=seconds, privacy=privacy)
    summary["export"] = found.told()
    if (own := summary["per_client"]) is not None:
        run.clients([{"client": name, **row} for name, row in own.items()])
    write_text(run.adapter / "README.md", model_card(setup, summary))
    ending.tracked.finish(summary)
    run.finish(summary)
    ending.account.ended()
    return summary
