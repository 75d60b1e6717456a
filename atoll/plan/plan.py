"""The plan of a run: what it will send, hold, write, and take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.experiment.setup import Setup
from atoll.plan.advice import LONG, Advice, disk_advice, memory_advice, time_advice
from atoll.plan.asked import Asked, asked
from atoll.plan.clock import Seconds
from atoll.plan.estimate import (
    Knobs,
    Memory,
    disk_use,
    kept_bytes,
    memory_use,
    workers_of,
)
from atoll.plan.frozen import apart, frozen_of
from atoll.plan.machine import Disk, Machine, disk_of, look
from atoll.plan.memory import needs_of, room_of
from atoll.plan.phases import baseline_work, round_work
from atoll.plan.rows import rows_of
from atoll.plan.time import comparing, pace_of, seconds_of
from atoll.plan.traffic import Traffic, traffic
from atoll.plan.work import Work
from atoll.protection.speaking import SPEAKING
from atoll.runs.summary import trainable_parameters

__all__ = ["IN_ROUNDS", "Plan", "RoundPlan", "added", "make_plan"]

IN_ROUNDS = ("training", "head", "evaluation")


@dataclass(frozen=True)
class RoundPlan:
    """A line of rounds.jsonl, as far as it is known before: exact where every client answers."""

    round: int
    bytes_up: int
    bytes_down: int
    exchanges: int
    clients: int


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    steps: optimiser steps of all clients in all rounds.
    limit: bytes of memory that the run may have here.   disk: bytes of the run directory's parts.
    seconds: of `training`, `head` and `evaluation` in rounds, of each baseline, and of `measuring`
        at the end; None where the memory does not suffice to try.
    """

    trainable_parameters: int
    group_size: int
    traffic: tuple[Traffic, ...]
    rounds: tuple[RoundPlan, ...]
    steps: int
    memory: Memory
    limit: int
    disk: Mapping[str, int]
    place: Disk
    seconds: Mapping[str, Seconds] | None
    machine: Machine
    advice: tuple[Advice, ...]

    @property
    def whole(self) -> Seconds | None:
        """The seconds of the run, once it is prepared."""
        return None if self.seconds is None else added(self.seconds.values())

    @property
    def in_rounds(self) -> Seconds | None:
        """The seconds of its rounds."""
        return None if self.seconds is None else added(self.seconds[name] for name in IN_ROUNDS)


def make_plan(setup: Setup, folder: Path) -> Plan:
    """Plan the run of `setup` in `folder`; nothing is written there."""
    setup, machine = _in_turn(apart(setup)), look()
    exchanges = asked(setup)
    travels, rows = traffic(setup, exchanges), rows_of(setup)
    works = {**round_work(setup, exchanges, rows), **baseline_work(setup, rows)}
    frozen = frozen_of(setup, rows.everything(setup), machine.free)
    limit = room_of(setup.bench.device, machine)
    needs = needs_of(setup, limit)
    kept = kept_bytes(setup, needs, exchanges, _reply(travels), rows)
    kept["frozen"] = frozen.nbytes * frozen.in_memory

    def use(knobs: Knobs) -> Memory:
        return memory_use(setup, needs, works, kept, knobs)

    memory = use(Knobs())
    fits = memory.total <= limit
    disk, place = disk_use(setup, needs, exchanges), disk_of(folder)
    disk["frozen"] = 0 if frozen.in_memory else frozen.nbytes
    seconds = _seconds(setup, exchanges, works, machine.cores) if fits else None
    advice: list[Advice] = [] if fits else [*memory_advice(setup, limit, use)]
    if sum(disk.values()) > place.free:
        advice += disk_advice(setup, disk)
    if seconds is not None and added(seconds.values()).wall > LONG:
        advice += time_advice(setup, seconds, machine.cores)
    return Plan(
        trainable_parameters=trainable_parameters(setup),
        group_size=setup.bench.group_size,
        traffic=tuple(travels),
        rounds=_rounds(travels),
        steps=round(works["training"].training.steps),
        memory=memory,
        limit=limit,
        disk=disk,
        place=place,
        seconds=seconds,
        machine=machine,
        advice=tuple(advice),
    )


def _in_turn(setup: Setup) -> Setup:
    """Without the algorithm by which secure sums are spoken of, which has no turn of its own."""
    named = {n: one for n, one in setup.program.algorithms.items() if n != SPEAKING}
    return replace(setup, program=replace(setup.program, algorithms=named))


def _reply(travels: Sequence[Traffic]) -> int:
    """Bytes of one client's answer in an adapter round."""
    trained = [one for one in travels if one.asked.kind == "round"]
    return max((one.bytes_up // len(one.asked.context.cohort) for one in trained), default=0)


def _rounds(travels: Sequence[Traffic]) -> tuple[RoundPlan, ...]:
    found: dict[int, RoundPlan] = {}
    for one in travels:
        number, kind = one.asked.context.round, one.asked.kind
        before = found.get(number, RoundPlan(number, 0, 0, 0, 0))
        found[number] = RoundPlan(
            number,
            before.bytes_up + one.bytes_up,
            before.bytes_down + one.bytes_down,
            before.exchanges + (kind == "exchange"),
            len(one.asked.context.cohort) if kind == "round" else before.clients,
        )
    return tuple(found.values())


def _seconds(
    setup: Setup, exchanges: Sequence[Asked], works: Mapping[str, Work], cores: int
) -> dict[str, Seconds]:
    pace = pace_of(setup, exchanges)
    found = {name: seconds_of(work, pace) for name, work in works.items()}
    found["measuring"] += comparing(setup)
    # Clients that are shared out to processes work side by side, as far as there are cores.
    aside = max(min(workers_of(setup), cores), 1)
    return {n: one.times(1 / aside if n in IN_ROUNDS else 1.0) for n, one in found.items()}


def added(several: Iterable[Seconds]) -> Seconds:
    """All of them, one after the other."""
    return sum(several, Seconds())
