"""Progress on stderr: bars on a terminal, a line a round elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median_low
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from atoll.report.words import bytes_text, seconds_text
from atoll.words import counted

if TYPE_CHECKING:
    from atoll.experiment.setup import Setup
    from atoll.runs.lines import RoundLine

__all__ = ["Display", "seconds_left"]

WAITED = 3.0
"""Times the median beyond which a round is not counted; one that also evaluates is."""


def seconds_left(rounds: Sequence[float], *, num_rounds: int, arms: float) -> float | None:
    """Time to the end, from the seconds of finished rounds; None before there is one.

    A round that took far longer than most has waited for somebody, and others need not.

    arms: baselines still to be trained. Each takes as many passes over a row as all rounds do.
    """
    if not rounds:
        return None
    usual = [seconds for seconds in rounds if seconds <= WAITED * median_low(rounds)]
    each = fmean(usual)
    return each * (num_rounds - len(rounds) + arms * num_rounds)


class Display:
    """What a run is doing, from loading to the last baseline."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("loading model and data", total=None, state="")
        self._metric, self._num_rounds, self._arms = "metric", 0, 0
        self._seconds: list[float] = []
        self._bytes, self._result = 0, ""
        self._said = ""

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def begin(self, setup: Setup) -> None:
        """Training starts; say what of."""
        self._metric = setup.bench.objective.metric.name
        self._num_rounds = setup.experiment.federation.num_rounds
        self._arms = len(setup.experiment.evaluate.baselines)
        rows = sum(count.train for count in setup.data.counts.values())
        told = f" with {counted(rows, 'training row')}" if rows else ""  # sites may keep it
        self.note(
            f"{counted(len(setup.data.clients), 'client')}{told}; "
            f"{counted(self._num_rounds, 'round')} of {counted(setup.clients_per_round, 'client')}"
        )
        if hiding := setup.protection or setup.rows:
            self.note(hiding.told())

    def resumed(self, lines: Sequence[RoundLine]) -> None:
        """Rounds that an earlier process did."""
        self._seconds = [line.seconds for line in lines if line.round > 0]
        self._bytes = sum(line.bytes_up + line.bytes_down for line in lines)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` parts of what is being done."""
        local = what in ("local", "pooled")
        if done == 0 and local:
            self._arms -= 1
        left = seconds_left(
            self._seconds,
            num_rounds=self._num_rounds,
            arms=self._arms + (1 - done / max(total, 1) if local else 0.0),
        )
        words = f"baseline: {what}" if local else _words(what, self._num_rounds)
        if self._live:
            state = [self._result, "" if left is None else f"about {seconds_text(left)} left"]
            self._progress.update(
                self._task, description=words, completed=done, total=total,
                state=" · ".join(filter(None, state)),
            )  # fmt: skip
        elif local and words != self._said:
            self.note(words)
        self._said = words

    def round(self, line: RoundLine) -> None:
        """A round is over."""
        self._bytes += line.bytes_up + line.bytes_down
        if line.round > 0:
            self._seconds.append(line.seconds)
        parts = [f"round {line.round}/{self._num_rounds}"]
        parts += [] if line.loss is None else [f"loss {line.loss:.3f}"]
        parts += [] if line.metric is None else [f"{self._metric} {line.metric:.4g}"]
        parts += [] if line.epsilon is None else [f"epsilon {line.epsilon:.3g}"]
        parts += [f"{bytes_text(self._bytes)} exchanged", seconds_text(line.seconds)]
        self._result = " · ".join(parts[1:-1])
        left = seconds_left(self._seconds, num_rounds=self._num_rounds, arms=self._arms)
        if not self._live and left is not None:
            parts.append(f"about {seconds_text(left)} left")
        self.note("  ".join(parts))


def _words(what: str, num_rounds: int) -> str:
    """`round 3: train` as `round 3/20: training`; other names are exchanges that solve the head."""
    round_, _, name = what.partition(": ")
    doing = {"train": "training", "evaluation": "evaluating"}.get(name, f"head ({name})")
    return f"{round_}/{num_rounds}: {doing}"
