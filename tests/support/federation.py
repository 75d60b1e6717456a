"""Tiny uneven federations on the tiny models, and ways to compare what was trained."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atoll.adapters.build import Built, build_adapter
from atoll.config.adapter import Adapter
from atoll.config.sections import Train
from atoll.core import Channel, Context, Failure, Request
from atoll.local.bench import Bench
from atoll.local.train import LocalRule, Trained, train
from atoll.models.base import Base
from atoll.models.causal import causal
from atoll.models.classification import classification
from atoll.models.objective import Example, Objective
from tests.support.models import WORDS, Zoo

__all__ = [
    "LABELS",
    "SIZES",
    "Site",
    "distance",
    "labelled_rows",
    "moved",
    "site",
    "stir",
    "text_rows",
]

LABELS = ("sea", "land", "sky", "life")
SIZES = {"ada": 7, "bob": 2, "cy": 11, "dee": 5, "eve": 1}
"""Rows of each client: other numbers of steps, other last batches."""

Row = dict[str, str]


def labelled_rows(sizes: Mapping[str, int] = SIZES, *, longest: int = 14) -> dict[str, list[Row]]:
    """Rows of text and label; each client has its own labels (all but one of them) and lengths."""
    rows: dict[str, list[Row]] = {}
    for place, (client, size) in enumerate(sizes.items()):
        draw = random.Random(f"rows of {client}")
        mine = [label for i, label in enumerate(LABELS) if i != place % len(LABELS)]
        rows[client] = [
            {"text": " ".join(draw.choices(WORDS, k=draw.randint(1, longest))),
             "label": draw.choice(mine)}
            for _ in range(size)
        ]  # fmt: skip
    return rows


def write_labelled(folder: Path, sizes: Mapping[str, int]) -> None:
    """`labelled_rows` as people bring them: data/<client>/train.jsonl."""
    for client, rows in labelled_rows(sizes).items():
        place = folder / "data" / client
        place.mkdir(parents=True)
        (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def text_rows(sizes: Mapping[str, int] = SIZES) -> dict[str, list[Row]]:
    """Rows of prompt and completion."""
    rows: dict[str, list[Row]] = {}
    for client, size in sizes.items():
        draw = random.Random(f"texts of {client}")
        rows[client] = [
            {"prompt": " ".join(draw.choices(WORDS, k=draw.randint(1, 3))),
             "completion": " " + " ".join(draw.choices(WORDS, k=draw.randint(1, 3)))}
            for _ in range(size)
        ]  # fmt: skip
    return rows


@dataclass(frozen=True)
class Site:
    """A bench, what it was made from, and the values that clients start from."""

    base: Base
    built: Built
    bench: Bench
    values: dict[str, Tensor]
    clients: tuple[str, ...]

    def requests(
        self,
        *,
        clients: Sequence[str] | None = None,
        round: int = 1,
        seed: int = 5,
        own: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> list[Request]:
        """One request a client; `own` values replace the common start of the clients it names."""
        asked = tuple(clients or self.clients)
        head = f"{self.bench.head}."
        found = []
        for client in asked:
            values = {**self.values, **(own or {}).get(client, {})}
            parts = {
                "adapter": {n: v for n, v in values.items() if not n.startswith(head)},
                "head": {n: v for n, v in values.items() if n.startswith(head)},
            }
            context = Context(seed, "run", round, round, asked, len(self.clients), client)
            found.append(Request(context, {n: Channel(tree) for n, tree in parts.items()}))
        return found

    def train(
        self, *, group_size: int, rule: LocalRule | None = None, **asked: Any
    ) -> tuple[dict[str, Trained], dict[str, Failure]]:
        """Train, as (results, failures) by client."""
        bench = replace(self.bench, group_size=group_size)
        results: dict[str, Trained] = {}
        failures: dict[str, Failure] = {}
        rule = rule or LocalRule(mean_gradient=True)
        for one in train(bench, self.requests(**asked), rule):
            if isinstance(one, Failure):
                failures[one.client] = one
            else:
                results[one.request.context.client] = one
        return results, failures

    def with_train(self, **settings: Any) -> Site:
        """The same site under other training settings."""
        changed = self.bench.settings.model_copy(update=settings)
        return replace(self, bench=replace(self.bench, settings=changed))


def site(
    zoo: Zoo,
    kind: str = "bert",
    *,
    adapter: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    objective: Mapping[str, Any] | None = None,
    dtype: str = "float64",
    pooling: str = "mean",
    rows: Mapping[str, list[Any]] | None = None,
    train_head: bool = True,
    num_rounds: int = 3,
    max_length: int = 48,
) -> Site:
    """A classifier on BERT, a language model on GPT-2, LLaMA and Mamba."""
    labels = None if kind in ("gpt2", "llama", "mamba") else LABELS
    base = zoo.base(kind, dtype=dtype, labels=labels and len(labels), pooling=pooling)
    if labels is None:
        task = causal(base.tokenizer, max_length=max_length, **(objective or {}))
        rows = rows or text_rows()
    else:
        task = classification(
            base.tokenizer, labels=labels, max_length=max_length, **(objective or {})
        )
        rows = rows or labelled_rows()
    encoded = {client: task.encode(own) for client, own in rows.items()}
    built = build_adapter(base, Adapter(**(adapter or {})), probe(task, encoded))
    bench = Bench(
        model=built.model,
        objective=task,
        examples=lambda client, split: encoded[client],
        settings=Train(**{"per_device_train_batch_size": 2, **(train or {})}),
        head=base.head,
        train_head=train_head,
        group_size=1,
        num_rounds=num_rounds,
        device=torch.device("cpu"),
    )
    exact = getattr(torch, dtype)
    values = {name: value.to(exact) for name, value in built.model.init(0).items()}
    return Site(base, built, bench, values, tuple(rows))


def probe(task: Objective, encoded: Mapping[str, Sequence[Example]]) -> Any:
    """A batch of two rows."""
    first = next(iter(encoded.values()))
    return task.collate([first[0], first[-1]])


def stir(values: Mapping[str, Tensor], seed: int, *, std: float = 0.05) -> dict[str, Tensor]:
    """Values moved by noise, so that nothing is zero (B, a head)."""
    noise = torch.Generator().manual_seed(seed)
    return {
        name: value + std * torch.randn(value.shape, generator=noise, dtype=value.dtype)
        for name, value in values.items()
    }


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest ‖a − b‖ / ‖b‖ over the tensors; names and shapes are the same."""
    assert a.keys() == b.keys()
    return max(_relative(a[name], b[name]) for name in b)


def moved(one: Trained) -> dict[str, Tensor]:
    """What training added to a client's values."""
    return {name: one.end[name] - one.start[name] for name in one.end}


def _relative(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    size = float(b.double().norm())
    gap = float((a.double() - b.double()).norm())
    return gap / size if size else gap
