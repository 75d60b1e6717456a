"""One workload for all arms: a model, K clients with rows of 32 tokens, and who trains them how."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from atoll.adapters.build import build_adapter
from atoll.algorithms.fedavg import fedavg
from atoll.config import Adapter, Train
from atoll.core import Context, Federation, Position, Program, Report, State
from atoll.local.batches import plan_steps
from atoll.local.bench import Bench
from atoll.local.group import group_size
from atoll.models.base import Base
from atoll.models.causal import causal
from atoll.models.classification import classification
from atoll.models.objective import Example, Objective
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from benchmarks.models import NUM_LABELS
from benchmarks.overhead.bare import BareModel, Client, Pooled, federated_round, train_client

__all__ = ["Case", "Workload", "arms", "build"]

TOKENS = 32
RANK, ALPHA, RATE = 4, 8.0, 1e-3
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Workload:
    """A model prepared twice: for Atoll, and by hand."""

    base: Base
    objective: Objective
    bench: Bench
    state: State
    bare: BareModel
    start: Mapping[str, Tensor]
    vocabulary: int
    device: torch.device


def build(base: Base, *, device: str = "cpu") -> Workload:
    """LoRA on every linear layer of the base, and a head that trains where there is one."""
    place, is_causal = torch.device(device), base.head is None
    by_hand = copy.deepcopy(base)
    base.model.to(place)
    if is_causal:
        objective = causal(base.tokenizer, max_length=TOKENS)
    else:
        labels = [str(number) for number in range(NUM_LABELS)]
        objective = classification(base.tokenizer, labels=labels, max_length=TOKENS)
    vocabulary = int(base.backbone.config.vocab_size)  # type: ignore[union-attr]
    probe = objective.collate(_rows(np.random.default_rng(0), 2, vocabulary, is_causal))
    settings = Adapter(method="lora", r=RANK, lora_alpha=ALPHA, head=None if is_causal else "train")
    built = build_adapter(base, settings, probe.to(place))
    assert built.alone is None, built.alone
    train = Train(learning_rate=RATE, max_grad_norm=None)
    bench = Bench(built.model, objective, lambda client, split: [], train, base.head,
                  not is_causal, 1, 1, place)  # fmt: skip
    values = built.model.init(0)
    head = {name: value for name, value in values.items() if base.head and base.head in name}
    state: State = {"adapter": {n: v for n, v in values.items() if n not in head}}
    if head:
        state["head"] = head
    model = by_hand.model
    if not is_causal:
        model = Pooled(by_hand.backbone, model.get_submodule(str(base.head)))  # type: ignore[arg-type]
    targets = [("" if is_causal else "backbone.") + name for name in built.targets]
    bare = BareModel(model, targets, r=RANK, scale=ALPHA / RANK, causal=is_causal)
    bare.model.to(place)
    start = {_by_hand(name, str(base.head)): value.to(place) for name, value in values.items()}
    assert start.keys() == bare.parameters.keys(), start.keys() ^ bare.parameters.keys()
    return Workload(base, objective, bench, state, bare, start, vocabulary, place)


def _by_hand(name: str, head: str) -> str:
    renamed = name.replace("lora_A.weight", "a").replace("lora_B.weight", "b")
    return renamed.replace(f"{head}.", "head.") if name.startswith(f"{head}.") else renamed


def _rows(draw: np.random.Generator, count: int, vocabulary: int, is_causal: bool) -> list[Example]:
    ids = draw.integers(5, vocabulary, (count, TOKENS), dtype=np.int32)
    labels = draw.integers(0, NUM_LABELS, (count, 1))
    return [
        Example(row, row.astype(np.int64) if is_causal else label)
        for row, label in zip(ids, labels, strict=True)
    ]


@dataclass(frozen=True)
class Case:
    """K clients that each take `steps` steps of `rows` rows in a round."""

    work: Workload
    clients: int
    rows: int
    steps: int

    def atoll(self, group: int | str, clients: int | None = None) -> Callable[[], Report]:
        """A whole federated round in Atoll: broadcast, local training, fold, server."""
        roster = self.roster[:clients]
        bench = replace(self.bench, group_size=self.group(group))
        program = Program({"train": fedavg(bench)}, lambda number: ("train",))
        runtime = InProcess(roster, program.algorithms, memory_store())
        plan = Federation(seed=0, run="federated", num_rounds=1, clients_per_round=len(roster))
        start = Position(self.work.state, round=0)
        return lambda: next(federate(program, runtime, plan, start))

    def bare(
        self, clients: int | None = None, *, fused: bool | None = None
    ) -> Callable[[], tuple[dict[str, Tensor], list[float]]]:
        """The same round by hand."""
        made = [self._client(name) for name in self.roster[:clients]]
        work = self.work
        return lambda: federated_round(work.bare, made, work.start, lr=RATE, fused=fused)

    def centralised(self) -> Callable[[], float]:
        """One model on all clients' rows: as many steps, each with every client's batch in it."""
        made = [self._client(name) for name in self.roster]
        sizes = np.cumsum([0] + [len(client.target) for client in made])
        steps = [
            torch.cat([c.steps[number] + int(at) for c, at in zip(made, sizes[:-1], strict=True)])
            for number in range(self.steps)
        ]
        inputs = {n: torch.cat([c.inputs[n] for c in made]) for n in made[0].inputs}
        whole = Client(inputs, torch.cat([client.target for client in made]), steps)
        return lambda: train_client(self.work.bare, whole, lr=RATE)

    @property
    def roster(self) -> tuple[str, ...]:
        """The clients' names."""
        return tuple(f"client-{number:03d}" for number in range(self.clients))

    @property
    def bench(self) -> Bench:
        """Atoll's, with this case's rows."""
        settings = self.work.bench.settings.model_copy(
            update={"per_device_train_batch_size": self.rows}
        )
        rows = {name: self._examples(name) for name in self.roster}
        return replace(self.work.bench, settings=settings, examples=lambda c, split: rows[c])

    def group(self, group: int | str) -> int:
        """A group size in numbers."""
        if isinstance(group, int):
            return group
        return group_size(self.bench, clients=self.roster)

    def check(self) -> dict[str, float]:
        """That the arms do the same work: largest differences of updates and of losses."""
        few = min(self.clients, 4)
        update, losses = self.bare(few)()
        worst = {"update": 0.0, "loss": 0.0}
        for group in (1, few):
            report = self.atoll(group, few)()
            parts = report.position.server
            for part, before in self.work.state.items():
                for name, value in before.items():
                    moved = parts[part][name] - value
                    other = update[_by_hand(name, str(self.work.base.head))].cpu()
                    worst["update"] = max(worst["update"], float((moved - other).abs().max()))
            found = [report.exchanges[0].clients[name]["loss"] for name in self.roster[:few]]
            for ours, theirs in zip(found, losses, strict=True):
                worst["loss"] = max(worst["loss"], abs(ours - theirs))
        size = max(float(value.abs().max()) for value in update.values())
        assert size > 10 * TOLERANCE, "clients did not move"
        assert max(worst.values()) <= TOLERANCE, f"the arms do other work: {worst}"
        return worst

    def _examples(self, client: str) -> list[Example]:
        draw = np.random.default_rng(int(client.split("-")[1]))
        return _rows(
            draw, self.rows * self.steps, self.work.vocabulary, self.work.base.head is None
        )

    def _client(self, client: str) -> Client:
        """Tensors of a client's rows, in the batches that Atoll draws for them."""
        examples, place = self._examples(client), self.work.device
        context = Context(0, "federated", 1, 0, self.roster, self.clients, client)
        steps = plan_steps([TOKENS] * len(examples), context, batch_size=self.rows, epochs=1)
        batch = self.work.objective.collate(examples).to(place)
        return Client(batch.inputs, batch.target, [torch.tensor(s, device=place) for s in steps])


def arms(case: Case) -> dict[str, tuple[Callable[[], object], int]]:
    """name -> (a round, how many clients are in it); one client after another needs only a few."""
    few = min(case.clients, 4)
    return {
        "bare": (case.bare(few), few),
        "fused": (case.bare(few, fused=True), few),
        "one": (case.atoll(1, few), few),
        "stacked": (case.atoll(case.clients), case.clients),
        "auto": (case.atoll("auto"), case.clients),
        "central": (case.centralised(), case.clients),
    }
