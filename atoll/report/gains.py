"""Did federating help my site? Each client's gain over its own model, sorted, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from atoll.report.records import Summary
from atoll.report.svg import COLOURS, draw
from atoll.report.verdict import decimals
from atoll.report.words import short, signed

__all__ = ["Gain", "Gains", "gains"]

NAMED = 40
"""More clients than this have no room for their names."""
FEW = 10
"""Fewer test rows than this can all agree by chance."""
DRAWN = 2000
"""More clients than this are drawn at evenly spaced places of their order."""


@dataclass(frozen=True)
class Gain:
    """One client: how much better the federated model is, and within which bounds."""

    client: str
    value: float
    ends: tuple[float, float] | None
    test_rows: int | None = None

    @property
    def kind(self) -> str:
        """`better` or `worse` where the interval leaves zero out; else `even`."""
        low, high = self.ends or (self.value, self.value)
        # A few rows that agree have an interval without width, or none, and prove nothing.
        if low == high and (self.test_rows or 0) < FEW:
            return "even"
        return "better" if low > 0 else "worse" if high < 0 else "even"


@dataclass(frozen=True)
class Gains:
    """All clients that can be compared, the least helped first."""

    rows: tuple[Gain, ...]
    svg: Markup
    text: str
    digits: int

    def count(self, kind: str) -> int:
        """How many clients are of a kind."""
        return sum(row.kind == kind for row in self.rows)

    @property
    def named(self) -> bool:
        """Whether the drawing has room for names, a line each."""
        return len(self.rows) <= NAMED

    @property
    def bounded(self) -> bool:
        """Whether any client has an interval."""
        return any(row.ends for row in self.rows)


def gains(summary: Summary) -> Gains | None:
    """The clients with both models measured; None where there are none."""
    found = [
        Gain(client, gain, row.gain_interval, row.test)
        for client, row in summary.per_client.items()
        if (gain := summary.gain(row)) is not None
    ]
    if not found:
        return None
    rows = tuple(sorted(found, key=lambda row: (row.value, row.client)))
    digits = decimals(summary)
    text = (
        f"Gain in {summary.metric} of the federated model over each client's own, sorted: from "
        f"{signed(rows[0].value, digits=digits)} ({short(rows[0].client, 40)}) to "
        f"{signed(rows[-1].value, digits=digits)} ({short(rows[-1].client, 40)})"
    )
    return Gains(
        rows, _named(rows, text) if len(rows) <= NAMED else _many(rows, text), text, digits
    )


def _named(rows: Sequence[Gain], text: str) -> Markup:
    """A line a client, the most helped on top."""

    def plot(axes: Axes) -> None:
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for place, row in enumerate(rows):
            colour = COLOURS[row.kind]
            if row.ends is not None:
                axes.plot(row.ends, [place, place], color=colour, linewidth=2, alpha=0.55,
                          solid_capstyle="round")  # fmt: skip
            axes.plot([row.value], [place], color=colour, marker="o", markersize=6)
        axes.set_yticks(range(len(rows)), [short(row.client, 18) for row in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(-0.8, len(rows) - 0.2)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel("gain over the client's own model")

    return draw(plot, name="gains", title=text, height=0.7 + 0.235 * len(rows))


def _many(rows: Sequence[Gain], text: str) -> Markup:
    """Clients from left to right, the most helped last."""
    step = max(1, -(-len(rows) // DRAWN))
    places = range(0, len(rows), step)

    def plot(axes: Axes) -> None:
        axes.axhline(0, color=COLOURS["muted"], linewidth=1)
        for kind in ("even", "worse", "better"):
            mine = [place for place in places if rows[place].kind == kind]
            # One path for all intervals: a gap stands between two of them.
            spans = [(p, *ends) for p in mine if (ends := rows[p].ends) is not None]
            axes.plot(
                [x for place, _, _ in spans for x in (place, place, place)],
                [y for _, low, high in spans for y in (low, high, float("nan"))],
                color=COLOURS[kind], linewidth=0.9, alpha=0.45,
            )  # fmt: skip
            axes.plot(mine, [rows[place].value for place in mine], color=COLOURS[kind],
                      marker="o", markersize=2, linestyle="none")  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("clients, the least helped first")
        axes.set_ylabel("gain over the own model")

    return draw(plot, name="gains", title=text, height=3.6)
