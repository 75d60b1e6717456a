"""The outputs of frozen blocks that a run keeps: how large they are, and what they cost once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from atoll.experiment.bench import first_state
from atoll.experiment.hiding import hiding_of
from atoll.experiment.prefix import MEMORY_MOST, MEMORY_SHARE
from atoll.experiment.program import Heads, build_program, head_methods
from atoll.experiment.setup import Setup
from atoll.local.features import feature_cache
from atoll.local.prefix import KIN, memory_shelf
from atoll.models.objective import Example
from atoll.plan.clock import Line, Sample, Seconds, fit, timed

__all__ = ["Frozen", "apart", "frozen_of", "frozen_pace"]

GROUPS = 6


@dataclass(frozen=True)
class Frozen:
    """Bytes of what frozen blocks make of all rows, and whether a run keeps it in memory."""

    nbytes: int = 0
    in_memory: bool = True


def apart(setup: Setup) -> Setup:
    """The same run, whose outputs of frozen blocks are not kept where the run keeps them."""
    prefix = setup.bench.prefix
    if prefix is None:
        return setup
    bench = replace(setup.bench, prefix=replace(prefix, shelf=memory_shelf()))
    labelled = None if setup.labelled is None else feature_cache(bench)
    settings = setup.experiment.adapter
    heads = Heads() if labelled is None else head_methods(bench, settings, labelled)
    hiding = replace(hiding_of(setup.loaded, setup.data, None, None), clients=setup.protection)
    program = build_program(setup.loaded, bench, heads, hiding.clients, measured=hiding.measured)
    state = first_state(bench, setup.experiment)
    program, _ = hiding.sealed(setup.loaded, program, state, lambda text: None)
    return replace(setup, bench=bench, labelled=labelled, program=program)


def frozen_of(setup: Setup, everything: tuple[int, int], free: int) -> Frozen:
    """What a run keeps of all rows.

    everything: how many rows, and tokens.   free: bytes of memory that are free when it starts.
    """
    if setup.bench.prefix is None:
        return Frozen()
    row = next(iter(setup.bench.examples(setup.data.clients[0], "train")))
    batch = setup.bench.objective.collate([row]).to(setup.bench.device)
    hidden = setup.bench.prefix.boundary.prefix(batch.inputs)
    # Rows without a length, as images, are all of one size.
    count, tokens = everything
    size = tokens * hidden.nbytes // len(row) if len(row) else count * hidden.nbytes
    wanted = setup.experiment.train.prefix_cache
    fits = size <= min(MEMORY_SHARE * free, MEMORY_MOST)
    return Frozen(size, wanted == "memory" or (wanted == "auto" and fits))


def frozen_pace(setup: Setup, rows: list[Example]) -> Line:
    """Over (passes, cells): frozen blocks on rows of about one length, as they run together."""
    if setup.bench.prefix is None:
        return Line((Seconds(), Seconds()))
    order = sorted(rows, key=len)
    groups = [order[start : start + KIN] for start in range(0, len(order), KIN)]
    few = [order[: KIN // 2], *groups[:: max(len(groups) // GROUPS, 1)]]
    boundary, samples = setup.bench.prefix.boundary, list[Sample]()
    for group in [few[0], *few]:  # The first pass of all pays for what is met for the first time.
        batch = setup.bench.objective.collate(group).to(setup.bench.device)
        _, taken = timed(lambda batch=batch: boundary.prefix(batch.inputs), setup.bench.device)  # type: ignore[misc]
        samples.append(((1, len(group) * max(len(group[-1]), 1)), taken))
    return fit(samples[1:])
