"""An experiment from its first exchange to its summary; the loop itself is `atoll.round`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.core import Failure, Federation, Reply, Report, Runtime, State, Task
from atoll.experiment.card import model_card
from atoll.experiment.compare import Arm, Comparison, compare
from atoll.experiment.export import export_adapter
from atoll.experiment.files import make_folder, write_text
from atoll.experiment.lines import RoundLine, public, round_line
from atoll.experiment.lock import alone
from atoll.experiment.run_dir import RunDirectory, open_run
from atoll.experiment.setup import Setup
from atoll.experiment.summary import summarize
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import disk_store, memory_store

__all__ = ["Observer", "run_experiment"]


@dataclass(frozen=True)
class Observer:
    """Who watches: notes, steps of long work, and finished rounds.

    step: (what, how many of it are done, of how many).
    """

    note: Callable[[str], None] = lambda text: None
    step: Callable[[str, int, int], None] = lambda what, done, total: None
    round: Callable[[RoundLine], None] = lambda line: None


def run_experiment(setup: Setup, output_dir: Path, observer: Observer) -> dict[str, Any]:
    """Run all rounds and baselines, write the run directory, and return the summary.

    Raises:
        AtollError: when too few clients answer, or a file cannot be written.
    """
    started = time.perf_counter()
    make_folder(output_dir)
    with alone(output_dir):
        if (output_dir / "experiment.yaml").exists():
            observer.note(f"starting over an unfinished run in {output_dir}")
        run = open_run(output_dir, setup)
        state, lines = _all_rounds(setup, run, observer)
        # Hours of work: they are kept before the baselines begin, whatever becomes of those.
        unmeasured = Comparison(Arm(None, {}))
        spent = time.perf_counter() - started
        so_far = summarize(setup, unmeasured, lines=lines, seconds=spent)
        export_adapter(setup, state, run.adapter, so_far)
        comparison = compare(
            setup, state, rounds=lines[-1].round, step=observer.step, note=observer.note
        )
        seconds = time.perf_counter() - started
        summary = summarize(setup, comparison, lines=lines, seconds=seconds)
        for name, row in summary["per_client"].items():
            run.add_client({"client": name, **row})
        write_text(run.adapter / "README.md", model_card(setup, summary))
        run.finish(summary)
    return summary


def _all_rounds(
    setup: Setup, run: RunDirectory, observer: Observer
) -> tuple[State, list[RoundLine]]:
    """The server's last state, and a line for each round."""
    lines: list[RoundLine] = []
    state = setup.start.server
    for report, seconds in _timed(_rounds(setup, run.path, observer)):
        state = report.position.server
        line = round_line(setup, report, seconds)
        lines.append(line)
        run.add_round(public(setup, line))
        for client, why in line.failures.items():
            observer.note(f"round {line.round}: {client} is left out: {why}")
        observer.round(line)
        if _stalled(setup, lines):
            observer.note(f"round {line.round}: no better for "
                          f"{setup.experiment.evaluate.patience} evaluations; stopped")  # fmt: skip
            break
    return state, lines


def _rounds(setup: Setup, output_dir: Path, observer: Observer) -> Iterator[Report]:
    federation = setup.experiment.federation
    on_disk = federation.client_state == "disk"
    store = disk_store(output_dir / "client_state") if on_disk else memory_store()
    runtime = InProcess(setup.data.clients, setup.program.algorithms, store)
    plan = Federation(
        seed=setup.experiment.seed,
        run="federated",
        num_rounds=federation.num_rounds,
        clients_per_round=setup.clients_per_round,
        min_clients=federation.min_clients,
    )
    return federate(setup.program, _Watched(runtime, observer.step), plan, setup.start)


@dataclass(frozen=True)
class _Watched:
    """A runtime that tells how many of the cohort have answered."""

    inner: Runtime
    step: Callable[[str, int, int], None]

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        what = f"round {tasks[0].context.round}: {tasks[0].algorithm}"
        self.step(what, 0, len(clients))
        for done, reply in enumerate(self.inner.call(tasks, clients), start=1):
            self.step(what, done, len(clients))
            yield reply


def _stalled(setup: Setup, lines: Sequence[RoundLine]) -> bool:
    """Whether the held-out metric has not improved for `evaluate.patience` evaluations."""
    patience = setup.experiment.evaluate.patience
    scores = [line.own for line in lines if line.own is not None]
    if patience is None or len(scores) <= patience:
        return False
    better = max if setup.bench.objective.higher_is_better else min
    return better(scores[:-patience]) == better(scores)


def _timed(reports: Iterator[Report]) -> Iterator[tuple[Report, float]]:
    start = time.perf_counter()
    for report in reports:
        yield report, time.perf_counter() - start
        start = time.perf_counter()
