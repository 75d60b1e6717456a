"""A tiny federation: embedding, LoRA on a non-square layer, a head; five clients of uneven rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from atoll.adapters.dense import linear_site
from atoll.adapters.lora import LoraScale, lora_site
from atoll.adapters.stacked import StackedModel
from atoll.config import Train
from atoll.core import (
    Algorithm,
    Failure,
    Federation,
    Payload,
    Position,
    Program,
    Reply,
    Report,
    Request,
    Runtime,
    State,
)
from atoll.local.bench import Bench
from atoll.local.evaluation import evaluation
from atoll.models.classification import classification
from atoll.models.objective import Example
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import ClientStore, memory_store

VOCABULARY, WIDTH, HIDDEN, LABELS = 17, 5, 4, 3
POISON = VOCABULARY - 1
"""A token whose embedding is NaN; no healthy client has it."""
ROWS = {"ada": 7, "bob": 3, "cyd": 5, "dee": 1, "eve": 4}
CLIENTS = tuple(ROWS)
ROUNDS = 3


class Numbers:
    """A tokenizer of texts that are token numbers."""

    pad_token_id = 0

    def __call__(self, texts: Sequence[str], **options: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


class Model(nn.Module):
    """Mean of embeddings, a hidden layer, a head."""

    def __init__(self) -> None:
        super().__init__()
        # Without their first values, which torch draws from the global generator.
        self.embedding = skip_init(nn.Embedding, VOCABULARY, WIDTH)
        self.hidden = skip_init(nn.Linear, WIDTH, HIDDEN)
        self.classifier = skip_init(nn.Linear, HIDDEN, LABELS)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for value in self.parameters():
                value.normal_(std=0.7, generator=generator)
            self.embedding.weight[POISON] = torch.nan

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # A row that attends to nothing but padding must not meet the poisoned embedding.
        mask = attention_mask.unsqueeze(-1)
        vectors = self.embedding(input_ids).masked_fill(mask == 0, 0)
        pooled = vectors.sum(1) / mask.sum(1)
        out: Tensor = self.classifier(torch.tanh(self.hidden(pooled)))
        return out


@functools.cache
def rows_of(client: str, split: str, count: int) -> tuple[Example, ...]:
    """Rows whose label leans on the client, so that clients pull apart."""
    generator = np.random.default_rng([sum(client.encode()), split == "train"])
    lean = sum(client.encode()) % LABELS
    return tuple(
        Example(
            generator.integers(1, POISON, size=generator.integers(2, 6)).astype(np.int32),
            np.asarray([lean if generator.random() < 0.6 else generator.integers(LABELS)]),
        )
        for _ in range(count)
    )


@dataclass(frozen=True)
class Tiny:
    """The federation's data, as tests bend it."""

    rows: Mapping[str, int] = field(default_factory=lambda: ROWS)
    poisoned: str = ""
    broken: str = ""

    def examples(self, client: str, split: str) -> Sequence[Example]:
        found = rows_of(client, split, self.rows[client] if split == "train" else 2)
        if client == self.broken and split == "train":
            raise ValueError(f"row 0 of {client} cannot be read")
        if client == self.poisoned and split == "train":
            return [Example(np.asarray([POISON, *row.ids]), row.target) for row in found]
        return found


SETTINGS = Train(
    learning_rate=0.2,
    optimizer="sgd",
    per_device_train_batch_size=2,
    max_grad_norm=1.0,
    lr_scheduler_type="linear",
)


def make_bench(
    settings: Train = SETTINGS,
    *,
    data: Tiny | None = None,
    group_size: int = 4,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Bench:
    model = Model().to(dtype).requires_grad_(False).eval()
    sites = [
        lora_site("hidden", (WIDTH, HIDDEN), r=2, scale=LoraScale(4.0), dropout=dropout),
        linear_site("classifier", model.classifier),
    ]
    return Bench(
        model=StackedModel(model, sites, drops=dropout > 0),
        objective=classification(Numbers(), labels=["x", "y", "z"], max_length=8),
        examples=(data or Tiny()).examples,
        settings=settings,
        head="classifier",
        train_head=True,
        group_size=group_size,
        num_rounds=ROUNDS,
        device=torch.device("cpu"),
    )


def first_state(bench: Bench, algorithm: Algorithm, seed: int = 0) -> State:
    dtype = next(bench.model.model.parameters()).dtype
    values = {name: value.to(dtype) for name, value in bench.model.init(seed).items()}
    # B starts at zero; with both factors away from it, no gradient is zero by chance.
    values["hidden.lora_B.weight"] = torch.linspace(-0.3, 0.3, 2 * HIDDEN).to(dtype).view(HIDDEN, 2)
    head = {name: value for name, value in values.items() if name.startswith("classifier.")}
    adapter = {name: value for name, value in values.items() if name not in head}
    return algorithm.server.init({"adapter": adapter, "head": head})


RuntimeFactory = Callable[[tuple[str, ...], Mapping[str, Algorithm], ClientStore], Runtime]
RUNTIMES: dict[str, RuntimeFactory] = {"inprocess": InProcess}
"""Every runtime stands here; each is held to the same properties."""


@dataclass(frozen=True)
class Scene:
    """An algorithm with its stages on one bench and one runtime."""

    bench: Bench
    algorithm: Algorithm
    runtime: RuntimeFactory = InProcess
    roster: tuple[str, ...] = CLIENTS
    per_round: int = 3
    min_clients: int = 1
    seed: int = 7
    evaluates: bool = False

    def start(self) -> Position:
        return Position(first_state(self.bench, self.algorithm))

    def rounds(
        self,
        position: Position | None = None,
        *,
        store: ClientStore | None = None,
        num_rounds: int = ROUNDS,
    ) -> Iterator[Report]:
        """Every round but 0 trains; with `evaluates`, each ends in an evaluation."""
        parts = {"train": self.algorithm, "evaluation": evaluation(self.bench)}
        evaluated = ("evaluation",) if self.evaluates else ()
        program = Program(parts, lambda number: ("train",) * (number > 0) + evaluated)
        plan = Federation(self.seed, "tiny", num_rounds, self.per_round, self.min_clients)
        runtime = self.runtime(self.roster, parts, store or memory_store())
        return federate(program, runtime, plan, position or self.start())

    def run(self, position: Position | None = None, *, store: ClientStore | None = None) -> Report:
        *_, last = self.rounds(position, store=store)
        return last

    def with_work(self, bend: Callable[[Reply], Reply | Failure]) -> Scene:
        """The same scene whose client work answers otherwise."""
        inner = self.algorithm.client

        def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
            for reply in inner.work(requests):
                yield bend(reply) if isinstance(reply, Reply) else reply

        client = replace(inner, work=work)
        return replace(self, algorithm=replace(self.algorithm, client=client))


def assert_same(a: Report | Position, b: Report | Position) -> None:
    """Bit for bit: the server's state, and all that the loop carries."""
    left, right = (x.position if isinstance(x, Report) else x for x in (a, b))
    assert left.server.keys() == right.server.keys()
    for part, tree in left.server.items():
        assert tree.keys() == right.server[part].keys()
        for name, value in tree.items():
            assert torch.equal(value, right.server[part][name]), f"{part}: {name}"
    assert (left.round, left.exchanges, dict(left.folded)) == (
        right.round, right.exchanges, dict(right.folded),
    )  # fmt: skip


def assert_close(a: Report, b: Report, *, tolerance: float) -> None:
    for part, tree in a.position.server.items():
        for name, value in tree.items():
            other = b.position.server[part][name]
            assert torch.allclose(value, other, rtol=tolerance, atol=tolerance), (
                f"{part}: {name} differs by {float((value - other).abs().max())}"
            )


def moved(report: Report, start: Position) -> bool:
    return any(
        not torch.equal(value, start.server[part][name])
        for part in ("adapter", "head")
        for name, value in report.position.server[part].items()
    )


def poison_update(payload: Payload) -> Payload:
    """The payload with one NaN in its update."""
    tree = {name: value.clone() for name, value in payload["update"].tree.items()}
    next(iter(tree.values())).view(-1)[0] = torch.nan
    return {**payload, "update": payload["update"].with_tree(tree)}
