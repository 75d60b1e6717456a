"""What changed from round to round: loss, metric, bytes and time as lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from atoll.report.read import RunFiles
from atoll.report.records import Summary
from atoll.report.svg import COLOURS, draw
from atoll.report.verdict import decimals
from atoll.report.words import bytes_text, number, seconds_text

__all__ = ["Figure", "curves"]


@dataclass(frozen=True)
class Figure:
    """A drawing, its heading, and what it says in words."""

    heading: str
    text: str
    svg: Markup


@dataclass(frozen=True)
class _Line:
    """Values by round; None where a round has none."""

    label: str
    colour: str
    values: Sequence[float | None]
    dashed: bool = False


@dataclass(frozen=True)
class _Level:
    """A value that all rounds are compared with."""

    label: str
    colour: str
    value: float


@dataclass(frozen=True)
class _Chart:
    name: str
    heading: str
    lines: Sequence[_Line]
    write: Callable[[float], str]
    levels: Sequence[_Level] = ()
    from_zero: bool = False
    marked: int | None = None


def curves(run: RunFiles) -> list[Figure]:
    """The charts of which there is something to draw."""
    rounds = [row.round for row in run.rounds]
    found = []
    for chart in _charts(run):
        lines = [line for line in chart.lines if any(y is not None for y in line.values)]
        if lines:
            found.append(_figure(chart, rounds, lines))
    return found


def _charts(run: RunFiles) -> Iterator[_Chart]:
    rows = run.rounds
    yield _metric(run)
    losses = _Line("mean over the cohort", "federated", [row.loss for row in rows])
    yield _Chart("loss", "Training loss", [losses], number)
    sent = [
        _Line(label, colour, _running(values))
        for label, colour, values in (
            ("clients to server", "federated", [row.bytes_up for row in rows]),
            ("server to clients", "pooled", [row.bytes_down for row in rows]),
        )
    ]
    yield _Chart("bytes", "Bytes so far", sent, bytes_text, from_zero=True)
    seconds = _Line("one round", "federated", [row.seconds for row in rows])
    yield _Chart("seconds", "Time of a round", [seconds], seconds_text, from_zero=True)


def _running(values: Sequence[int | None]) -> list[float | None]:
    if all(value is None for value in values):
        return []
    return list(accumulate(float(value or 0) for value in values))


def _metric(run: RunFiles) -> _Chart:
    """The metric where it was measured, beside what the baselines reached."""
    summary = run.summary or Summary()
    pairs = [row.metric for row in run.rounds]
    name = next((pair[0] for pair in pairs if pair), summary.metric)
    values = [pair[1] if pair else None for pair in pairs]
    own = [row.own for row in run.rounds]
    lines = [_Line("all held-out rows", "federated", own)]
    if own != values:
        lines = [
            _Line("common test set", "federated", values),
            _Line("own held-out rows", "even", own, dashed=True),
        ]
    levels = [
        _Level(label, arm, value)
        for arm, label in (("local", "local only"), ("pooled", "pooled"))
        if (value := summary.baselines.get(arm)) is not None
    ]
    digits = decimals(summary)
    return _Chart(
        name="metric",
        heading=f"{name[:1].upper()}{name[1:]}",
        lines=lines,
        write=lambda value: number(value, digits=digits),
        levels=levels,
        marked=summary.best_round,
    )


def _figure(chart: _Chart, rounds: Sequence[int], lines: Sequence[_Line]) -> Figure:
    said = [_in_words(line, rounds, chart.write) for line in lines]
    said += [f"{level.label}: {chart.write(level.value)}" for level in chart.levels]
    text = "; ".join(said)

    def plot(axes: Axes) -> None:
        for line in lines:
            known = [(x, y) for x, y in zip(rounds, line.values, strict=True) if y is not None]
            few = len(known) <= 30
            axes.plot(
                [x for x, _ in known], [y for _, y in known],
                color=COLOURS[line.colour], label=line.label, marker="o" if few else None,
                markersize=3.5, linestyle=(0, (4, 2)) if line.dashed else "solid",
            )  # fmt: skip
        for level in chart.levels:
            axes.axhline(level.value, color=COLOURS[level.colour], label=level.label,
                         linewidth=1.6, linestyle=(0, (1, 1.4)))  # fmt: skip
        _dress(axes, chart)

    svg = draw(plot, name=chart.name, title=f"{chart.heading} by round. {text}",
               height=3.0 if len(chart.levels) < 2 else 3.25)  # fmt: skip
    return Figure(chart.heading, text, svg)


def _dress(axes: Axes, chart: _Chart) -> None:
    if chart.marked is not None:
        axes.axvline(chart.marked, color=COLOURS["muted"], linewidth=0.8)
        axes.annotate("best", (chart.marked, 1), xycoords=("data", "axes fraction"), ha="center",
                      va="bottom", color=COLOURS["muted"], annotation_clip=False)  # fmt: skip
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: _tick(chart.write(value))))
    if chart.from_zero:
        axes.set_ylim(bottom=0)
    names = axes.get_legend_handles_labels()[1]
    if len(names) > 1:
        axes.figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)


def _tick(text: str) -> str:
    """`30 MB` instead of `30.0 MB`."""
    return text.replace(".0 ", " ")


def _in_words(line: _Line, rounds: Sequence[int], write: Callable[[float], str]) -> str:
    """`common test set: 0.612 in round 0, 0.843 in round 12`."""
    known = [(x, y) for x, y in zip(rounds, line.values, strict=True) if y is not None]
    ends = dict([known[0], known[-1]])
    return f"{line.label}: " + ", ".join(f"{write(y)} in round {x}" for x, y in ends.items())
