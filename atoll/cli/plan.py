"""`atoll plan`: what a run will take, before it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.process import load_torch
from atoll.cli.run import _place, located
from atoll.errors import ConfigError

if TYPE_CHECKING:
    from atoll.experiment.setup import Setup
    from atoll.plan.plan import Plan
    from atoll.plan.probe import Probe, Trial

__all__ = ["plan"]


def plan(
    experiment: Annotated[str, typer.Argument(metavar="FILE|RECIPE", hidden=True)],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", hidden=True)
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also try learning rates on one client, for about a minute."),
    ] = False,
    output_format: FormatOption = Format.text,
) -> None:
    """Say what a run will send, hold, write and take.

    FILE is an experiment file, RECIPE one of `atoll recipes`. KEY=VALUE sets any key of the file,
    as in federation.num_rounds=5.

    What `atoll run` would refuse is refused here. Parameters and bytes are exact when every client
    answers. Memory and time come from small parts of the run that are tried here and now. Nothing
    is written.
    """
    from atoll.config import load

    with located(experiment) as path:
        loaded = load(path, overrides=values or [])
    load_torch()
    place = _place(loaded, fork=False)
    if place.standing.state == "finished":
        note(f"this run is finished; its result stands in {place.folder}")
    from atoll.experiment.setup import prepare
    from atoll.plan.plan import make_plan

    begun = time.perf_counter()
    setup = prepare(loaded, note=note, machine=place.standing.machine)
    preparing = time.perf_counter() - begun
    if probe and "train" not in setup.program.algorithms:
        raise ConfigError(
            "--probe tries learning rates, and nothing trains in rounds; leave it out"
        )
    made = make_plan(setup, place.folder)
    if output_format is Format.json:
        tried = asdict(_probed(setup)) if probe else None
        emit({**_document(setup, made, preparing), "probe": tried})
        return
    from atoll.cli.plan_text import show_plan, show_probe

    show_plan(setup, made, experiment, preparing)
    if probe:
        show_probe(_probed(setup), setup.experiment.train.learning_rate)


def _probed(setup: Setup) -> Probe:
    from atoll.plan.probe import BUDGET, probe
    from atoll.report.words import seconds_text

    note(f"trying learning rates on one client, for about {seconds_text(BUDGET)}")

    def told(trial: Trial) -> None:
        became = "diverged" if trial.diverged else f"loss {trial.after:.4f}"
        note(f"  learning rate {trial.learning_rate:.3g}, {trial.steps} steps: {became}")

    return probe(setup, step=told)


def _document(setup: Setup, made: Plan, preparing: float) -> dict[str, Any]:
    federation = setup.experiment.federation
    memory, disk = made.memory, made.disk
    return {
        "trainable_parameters": made.trainable_parameters,
        "clients": len(setup.data.clients),
        "clients_per_round": setup.clients_per_round,
        "num_rounds": federation.num_rounds,
        "group_size": made.group_size,
        "steps": made.steps,
        "exchanges": sum(one.exchanges for one in made.rounds),
        "bytes_up": sum(one.bytes_up for one in made.rounds),
        "bytes_down": sum(one.bytes_down for one in made.rounds),
        "rounds": [asdict(one) for one in made.rounds],
        "memory": {
            **asdict(memory),
            "total": memory.total,
            "limit": made.limit,
            "fits": memory.total <= made.limit,
        },
        "disk": {
            "total": sum(disk.values()),
            "parts": dict(disk),
            "folder": str(made.place.folder),
            "free": made.place.free,
            "fits": sum(disk.values()) <= made.place.free,
        },
        "seconds": _times(made, preparing),
        "machine": asdict(made.machine),
        "advice": [asdict(one) for one in made.advice],
        "privacy": _privacy(setup, made),
    }


def _privacy(setup: Setup, made: Plan) -> Mapping[str, Any] | None:
    """What it would spend, and how much of an update is left beside the noise."""
    found = setup.protection or setup.rows
    if found is None:
        return None
    from atoll.accounting.statement import finite
    from atoll.protection import whole

    spent = whole(found)
    return {
        "epsilon": finite(spent.epsilon),
        "readers_epsilon": finite(spent.readers),
        "delta": spent.delta,
        "adjacency": spent.adjacency,
        **found.statement(),
        "signal_to_noise": found.signal_to_noise(made.trainable_parameters),
    }


def _times(made: Plan, preparing: float) -> Mapping[str, Any] | None:
    """None where the memory does not suffice to try."""
    if made.seconds is None or made.whole is None or made.in_rounds is None:
        return None
    return {
        "preparing": preparing,
        "rounds": made.in_rounds.wall,
        "whole": made.whole.wall,
        "parts": {name: one.wall for name, one in made.seconds.items()},
        "cpu": {name: one.cpu for name, one in made.seconds.items()},
    }
