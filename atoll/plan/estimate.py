"""From the needs of small parts to the most memory of a whole run, and to its disk."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.artifacts.peft_layout import peft_tree
from atoll.config import resolve
from atoll.disk.files import json_text
from atoll.experiment.checks import PLACES
from atoll.experiment.setup import Setup
from atoll.plan.asked import Asked
from atoll.plan.load import Batch
from atoll.plan.memory import Needs
from atoll.plan.rows import COMMON, Rows
from atoll.plan.work import Work
from atoll.runs.checkpoints import KEPT
from atoll.runs.lines import RoundLine, public
from atoll.runtimes.store import BACK
from atoll.tree import nbytes

__all__ = ["Knobs", "Memory", "disk_use", "kept_bytes", "memory_use", "workers_of"]


@dataclass(frozen=True)
class Knobs:
    """What a file could say instead: clients in one pass, and shares of the rows in a batch of
    training and of evaluation, and of their length; without the pooled baseline."""

    clients: int | None = None
    rows: float = 1.0
    measured: float = 1.0
    length: float = 1.0
    pooled: bool = True

    def training(self, batch: Batch) -> Batch:
        """A batch of training under these."""
        clients = batch.clients if self.clients is None else min(self.clients, batch.clients)
        rows = batch.rows / max(batch.clients, 1) * clients * self.rows
        return Batch(clients, math.ceil(rows), math.ceil(batch.length * self.length))

    def forward(self, batch: Batch) -> Batch:
        """A batch of evaluation under these."""
        rows, length = batch.rows * self.measured, batch.length * self.length
        return Batch(batch.clients, math.ceil(rows), math.ceil(length))


@dataclass(frozen=True)
class Memory:
    """The most bytes that the run's process holds at one time.

    during: the work that needs them.   before: bytes with model, rows and libraries, before it.
    kept: what stays through the run.   work: what each kind of work takes beside that.
    workers: processes beside this one, each with about as much.
    """

    peak: int
    during: str
    before: int
    kept: Mapping[str, int]
    work: Mapping[str, int]
    workers: int = 0

    @property
    def total(self) -> int:
        """Of all processes."""
        return self.peak * (1 + self.workers)


def memory_use(
    setup: Setup,
    needs: Needs,
    works: Mapping[str, Work],
    kept: Mapping[str, int],
    knobs: Knobs | None = None,
) -> Memory:
    """What a run takes whose work is `works`, beside what is `kept`."""
    knobs = knobs or Knobs()
    works = {name: work for name, work in works.items() if knobs.pooled or name != "pooled"}
    largest = max(setup.data.counts[name].train for name in setup.data.clients)
    rows = sum(count.train for count in setup.data.counts.values())
    found = {
        "evaluation": max(
            needs.forward.at(knobs.forward(work.forward.largest)) for work in works.values()
        ),
        "checkpoint": 2 * needs.server,
    }
    for name in ("training", "local", "pooled"):
        if name in works and works[name].training.passes:
            found[name] = needs.training.at(knobs.training(works[name].training.largest))
    if any(one.kind == "exchange" for one in setup.program.algorithms.values()):
        found["head"] = needs.head.at(largest)
        if "pooled" in works:
            found["head of the pooled model"] = needs.head.at(rows)
    during = max(found, key=lambda name: found[name])
    peak = needs.before + sum(kept.values()) + found[during]
    if needs.highest > peak:
        peak, during = needs.highest, "loading"
    return Memory(peak, during, needs.before, kept, found, workers_of(setup))


def workers_of(setup: Setup) -> int:
    """Processes that the clients are shared out to; 0: this one does it all."""
    bound = resolve(setup.experiment.federation.runtime, package=PLACES, where=setup.loaded.where)
    workers = inspect.signature(bound).parameters.get("workers")
    return 0 if workers is None else int(workers.default)


def kept_bytes(
    setup: Setup, needs: Needs, exchanges: Sequence[Asked], reply: int, rows: Rows
) -> dict[str, int]:
    """What stays in memory beside the work: answers that wait for their turn, measured rows, and
    the features that heads read.

    reply: bytes of one client's answer in an adapter round.
    """
    if setup.bench.device.type == "cuda":
        return {}  # it lies in the machine's memory, wherever the run computes
    trained = [one for one in exchanges if one.kind == "round"]
    waiting = max((_waiting(setup, one, rows) for one in trained[:1]), default=0)
    own = sum(len(rows.lengths(client, "test")) for client in setup.data.clients)
    shared = own if setup.common_test() is None else len(rows.lengths(*COMMON))
    local = len(setup.data.clients) if "local" in setup.experiment.evaluate.baselines else 0
    arms = 1 + len(setup.experiment.evaluate.baselines)
    scores = shared * (arms - bool(local) + local) + own * arms
    return {
        "answers": waiting * reply,
        "scores": scores * needs.score,
        "features": rows.features.most,
    }


def _waiting(setup: Setup, one: Asked, rows: Rows) -> int:
    """The most answers that wait: clients answer as stacks come, and are added up in order."""
    cohort, settings = one.context.cohort, setup.bench.settings
    if setup.bench.group_size == 1 or settings.max_steps is not None:
        return 0
    size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    places = {client: place for place, client in enumerate(cohort)}
    turn = most = 0
    here: set[int] = set()
    for client in sorted(
        cohort, key=lambda name: -math.ceil(len(rows.lengths(name, "train")) / size)
    ):
        here.add(places[client])
        most = max(most, len(here))
        while turn in here:
            here.remove(turn)
            turn += 1
    return most


def disk_use(setup: Setup, needs: Needs, exchanges: Sequence[Asked]) -> dict[str, int]:
    """Bytes of the run directory's parts, and what it has beside them while it is largest."""
    asked = Counter(
        client for one in exchanges if one.kind == "round" for client in one.context.cohort
    )
    adapter = _adapter_bytes(setup)
    rounds = setup.experiment.federation.num_rounds + 1
    best = int(setup.experiment.evaluate.load_best)
    return {
        "adapter": adapter,
        "checkpoints": (min(rounds, KEPT) + best) * needs.server,
        # A new checkpoint is written before an old one goes, and before there is an adapter.
        "for_a_while": max((min(rounds - KEPT, 1) + best) * needs.server - adapter, 0),
        "client_state": needs.client * sum(min(n, BACK + 1) for n in asked.values()),
        "records": _records(setup),
    }


def _adapter_bytes(setup: Setup) -> int:
    """Of the adapter's files, which also hold what is fixed in it."""
    adapter, head = (setup.start.server.get(part, {}) for part in ("adapter", "head"))
    random = [
        value
        for name, value in setup.base.model.named_buffers()
        if name.startswith("random.") and not name.startswith(setup.base.prefix)
    ]
    written = adapter if setup.built.peft is None else peft_tree(setup, adapter)
    return nbytes(written) + nbytes(head) + sum(value.nbytes for value in random)


def _records(setup: Setup) -> int:
    """rounds.jsonl, and what clients.jsonl and summary.json say of each client."""
    line = RoundLine(1, 0.5, 0.5, 0.5, 10**6, 10**6, 0, 1, {}, 1.0)
    a_round = len(json_text(public(setup, line))) + 1
    numbers = dict.fromkeys(("federated", "local", "gain", "low", "high"), 0.123456789012345)
    counts = {"client": setup.data.clients[0], "train": 100, "test": 10}
    a_client = len(json_text({**counts, **numbers}))
    rounds = setup.experiment.federation.num_rounds + 1
    told = 0 if setup.experiment.privacy.secure_aggregation else len(setup.data.clients)
    return rounds * a_round + 3 * told * a_client
