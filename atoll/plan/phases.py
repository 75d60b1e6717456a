"""The phases of a run in their order, each with the work that it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from atoll.core import Context
from atoll.experiment.baselines import expected_passes
from atoll.experiment.setup import Setup
from atoll.plan.asked import Asked
from atoll.plan.load import Load, forward_load, training_load
from atoll.plan.rows import COMMON, Rows
from atoll.plan.work import Answers, Work, head_rows, measured, training_loads
from atoll.runs.gate import CLIENTS, ROWS

__all__ = ["baseline_work", "round_work"]


def round_work(setup: Setup, exchanges: Sequence[Asked], rows: Rows) -> dict[str, Work]:
    """Of all rounds: `training`, `head` and `evaluation`."""
    found = {"training": Work(), "head": Work(), "evaluation": Work()}
    trained = [one.context for one in exchanges if one.kind == "round"]
    jobs = [[context.at(client) for client in context.cohort] for context in trained]
    loads = iter(training_loads(setup.bench, jobs, rows, epochs=None))
    passes = expected_passes(setup, 1) * len(setup.data.clients) / setup.clients_per_round
    rounds = 0
    for one in exchanges:
        cohort = one.context.cohort
        count = sum(len(rows.lengths(client, "train")) for client in cohort)
        answers = {one.algorithm: Answers(1, len(cohort), count)}
        if one.kind == "round":
            rounds += 1
            fresh = sum((rows.met.run(name, "train", passes) for name in cohort), Load())
            found["training"] += Work(next(loads), answers=answers, fresh=fresh)
        elif one.kind == "evaluation":
            found["evaluation"] += measured(setup, rows) + Work(answers=answers)
        else:
            found["head"] += head_rows(setup, rows, cohort, str(rounds)) + Work(answers=answers)
    return found


def baseline_work(setup: Setup, rows: Rows) -> dict[str, Work]:
    """Of `measuring` the federated model at the end, and of the baselines that were asked for."""
    found = {"measuring": measured(setup, rows) + _examined(setup, rows)}
    wanted = setup.experiment.evaluate.baselines
    passes = expected_passes(setup, setup.experiment.federation.num_rounds)
    if "local" in wanted:
        found["local"] = _local(setup, rows, passes)
    if "pooled" in wanted:
        found["pooled"] = _pooled(setup, rows, passes) + measured(setup, rows)
    return found


def _examined(setup: Setup, rows: Rows) -> Work:
    """The adapter that was written, and the one that was trained, on a few rows."""
    lengths = [
        length
        for name in setup.data.clients[:CLIENTS]
        for length in rows.lengths(name, "train")[:ROWS]
    ]
    load = forward_load(lengths, setup.bench.settings.per_device_eval_batch_size)
    return Work(forward=load + load)


def _local(setup: Setup, rows: Rows, passes: float) -> Work:
    bench, clients = setup.bench, setup.data.clients
    size = bench.settings.per_device_eval_batch_size
    common = setup.common_test() is not None
    # Without common rows every client's are measured, each set by itself.
    keys = [COMMON] if common else [(name, "test") for name in clients]
    on_shared = sum((forward_load(rows.lengths(*key), size) for key in keys), Load())
    found = Work()
    if passes:
        alone = [_context(setup, "local", name) for name in clients]
        starts = range(0, len(clients), bench.group_size)
        groups = [alone[start : start + bench.group_size] for start in starts]
        fresh = sum((rows.met.run(name, "train", passes) for name in clients), Load())
        found += Work(sum(training_loads(bench, groups, rows, epochs=passes), Load()), fresh=fresh)
    for name in clients:
        found += Work(forward=forward_load(rows.lengths(name, "test"), size) + on_shared)
        found += _solved(setup, rows, [name], f"local {name}" if passes else "")
    return found


def _pooled(setup: Setup, rows: Rows, passes: float) -> Work:
    members = setup.data.clients
    found = _solved(setup, rows, members, "pooled" if passes else "")
    if passes:
        lengths = [length for name in members for length in rows.lengths(name, "train")]
        bench, context = replace(setup.bench, group_size=1), _context(setup, "pooled", "pool")
        found += Work(training_load(bench, [context], [lengths], epochs=passes))
    return found


def _context(setup: Setup, run: str, client: str) -> Context:
    return Context(setup.experiment.seed, run, 1, 0, (client,), 1, client)


def _solved(setup: Setup, rows: Rows, members: Sequence[str], trained: str) -> Work:
    """One client's head, that has the rows of `members`: before training, and after it.

    trained: what its representation is called after training; empty: it is not solved again.
    """
    names = [n for n in setup.program.order(0) if setup.program.algorithms[n].kind == "exchange"]
    count = sum(len(rows.lengths(name, "train")) for name in members)
    found = Work()
    for representation in ["0", *([trained] if trained and not setup.bench.train_head else [])]:
        for name in names:
            found += head_rows(setup, rows, members, representation)
            found += Work(answers={name: Answers(1, 1, count)})
    return found
