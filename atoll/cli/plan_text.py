"""A plan for people: what travels, what it takes, and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atoll.cli.output import command_line
from atoll.report.words import bytes_text, seconds_text
from atoll.words import counted

if TYPE_CHECKING:
    from atoll.experiment.setup import Setup
    from atoll.plan.plan import Plan
    from atoll.plan.probe import Probe, Trial
    from atoll.protection import Protection, RowProtection, Spread

__all__ = ["show_plan", "show_probe"]

NAMES = {"train": "adapter round", "evaluation": "evaluation"}


def show_plan(setup: Setup, made: Plan, file: str, preparing: float) -> None:
    """The whole plan."""
    console = Console(highlight=False)
    console.print("\n".join(_head(setup, made)), markup=False, soft_wrap=True)
    console.print()
    console.print(_travels(made))
    console.print()
    console.print(_needs(made, preparing))
    console.print("\n".join(_notes(setup, made)), markup=False, soft_wrap=True)
    if made.advice:
        console.print("\n".join(_advised(made, file)), markup=False, soft_wrap=True)


def _head(setup: Setup, made: Plan) -> Iterator[str]:
    from atoll.plan.sums import sums_told

    rounds = setup.experiment.federation.num_rounds
    yield (
        f"{counted(len(setup.data.clients), 'client')}, {setup.clients_per_round} in a round; "
        f"{counted(rounds, 'round')}, {counted(made.steps, 'step')} of training in all"
    )
    yield (
        f"{made.trainable_parameters:,} trainable parameters; "
        f"{counted(made.group_size, 'client')} in one pass"
    )
    if hiding := setup.protection or setup.rows:
        yield from _private(hiding, made)
    yield from sums_told(setup)


def _private(found: Protection | Spread | RowProtection, made: Plan) -> Iterator[str]:
    """What it would spend, and how much of an update is left beside the noise."""
    from atoll.accounting.statement import in_words
    from atoll.protection import whole as planned

    spent = planned(found)
    yield found.told()
    said = f"{spent.adjacency}, {spent.accountant}"
    yield f"epsilon {in_words(spent.epsilon)} after all rounds, {said}"
    if spent.readers is not None:
        readers = f"at most {in_words(spent.readers)} against readers of the models"
        yield f"  that is against the server; {readers}"
    ratio = found.signal_to_noise(made.trainable_parameters)
    if ratio is None or not found.releases:
        return
    once, whole = ratio
    of = "of a client's update " if found.settings.unit == "example" else ""
    alike = "gradients" if of else "updates"
    yield (
        f"signal to noise {of}in a round: {once:.2g} at most, {whole:.2g} in all of them, were all "
        f"{alike} alike and as long as the clip"
    )
    if whole < 1:
        yield (
            "  the noise would drown what clients learn: more clients a round, fewer trainable "
            "values (adapter.r, adapter.target_modules) or a larger epsilon raise it"
        )


def _travels(made: Plan) -> Table:
    table = _table("what travels", "times", "clients", "up, each", "down, each", "up", "down")
    for name in dict.fromkeys(one.asked.algorithm for one in made.traffic):
        several = [one for one in made.traffic if one.asked.algorithm == name]
        asked = {len(one.asked.context.cohort) for one in several}
        up, down = (sum(x.bytes_up for x in several), sum(x.bytes_down for x in several))
        clients = sum(len(one.asked.context.cohort) for one in several)
        table.add_row(
            NAMES.get(name, f"head ({name})"),
            str(len(several)),
            str(max(asked)),
            *(bytes_text(value / max(clients, 1)) for value in (up, down)),
            *(bytes_text(value) for value in (up, down)),
        )
    up, down = (sum(x.bytes_up for x in made.rounds), sum(x.bytes_down for x in made.rounds))
    table.add_row("in all", "", "", "", "", bytes_text(up), bytes_text(down))
    return table


def _needs(made: Plan, preparing: float) -> Table:
    table = _table("what it takes", "this run", "here", "")
    memory, disk = made.memory, sum(made.disk.values())
    processes = f" in {1 + memory.workers} processes" if memory.workers else ""
    fits = "fits" if memory.total <= made.limit else "too little"
    table.add_row(
        f"memory (most: {memory.during})", bytes_text(memory.total) + processes,
        f"{bytes_text(made.limit)} free", fits,
    )  # fmt: skip
    fits = "fits" if disk <= made.place.free else "too little"
    table.add_row("disk", bytes_text(disk), f"{bytes_text(made.place.free)} free", fits)
    if made.seconds is None or made.in_rounds is None or made.whole is None:
        return table
    table.add_row("time: preparing", seconds_text(preparing), "", "")
    table.add_row("time: rounds", seconds_text(made.in_rounds.wall), "", "")
    for name in ("local", "pooled", "measuring"):
        if name in made.seconds:
            what = "measuring" if name == "measuring" else f"baseline {name}"
            table.add_row(f"time: {what}", seconds_text(made.seconds[name].wall), "", "")
    whole = preparing + made.whole.wall
    table.add_row("time in all", seconds_text(whole), f"load {made.machine.load:.1f} of "
                  f"{counted(made.machine.cores, 'core')}", "")  # fmt: skip
    return table


def _notes(setup: Setup, made: Plan) -> Iterator[str]:
    yield ""
    if setup.experiment.evaluate.patience is not None:
        yield "evaluate.patience may end it earlier: this is the most that it takes."
    if made.machine.load > made.machine.cores:
        yield "The machine is busy: what it takes now is more than it will on a quiet one."
    if made.seconds is None:
        yield "Time is not known: what would be timed does not fit into the memory."
    yield "Parameters and bytes are exact when every client answers; the rest is estimated."


def _advised(made: Plan, file: str) -> Iterator[str]:
    for need in dict.fromkeys(one.need for one in made.advice):
        yield ""
        yield {"time": "To take less time, one of:"}.get(need, f"To need less {need}, one of:")
        for one in made.advice:
            if one.need == need:
                text = seconds_text if need == "time" else bytes_text
                leaves = "" if one.leaves is None else f": {text(one.leaves)}"
                yield f"  {command_line('atoll', 'plan', file, *one.values)}"
                yield f"      {one.why}{leaves}"


def show_probe(found: Probe, own: float) -> None:
    """What one client saw at each rate."""
    rows = counted(found.rows, "held-out row" if found.held_out else "training row")
    console = Console(highlight=False)
    console.print(
        f"\n{found.client}, loss on {rows}: {found.before:.4f} before", markup=False, soft_wrap=True
    )
    steps = sorted({one.steps for one in found.trials})
    table = _table("learning rate", *(f"after {counted(number, 'step')}" for number in steps))
    for rate in sorted({one.learning_rate for one in found.trials}):
        cells = {one.steps: one for one in found.trials if one.learning_rate == rate}
        table.add_row(f"{rate:.3g}", *(_cell(cells.get(number)) for number in steps))
    console.print(table)
    console.print(f"\n{_taken(found, own)}", markup=False, soft_wrap=True)


def _cell(trial: Trial | None) -> str:
    if trial is None or trial.diverged:
        return "diverged"
    return "" if trial.after is None else f"{trial.after:.4f}"


def _taken(found: Probe, own: float) -> str:
    if found.take is None:
        return "Every rate diverged: look at the rows, or try far smaller ones."
    if found.take == own:
        return f"It would keep train.learning_rate={own:g}: no other rate is clearly better."
    return (
        f"It would take train.learning_rate={found.take:g}. One client alone saw this: with many "
        "unlike clients a smaller rate is often better."
    )


def _table(*titles: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(titles[0])
    for title in titles[1:]:
        table.add_column(title, justify="right")
    return table
