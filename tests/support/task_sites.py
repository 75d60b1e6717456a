"""Sites of any task: a base, an objective and uneven clients, ready to train."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from atoll.adapters.build import build_adapter
from atoll.config.adapter import Adapter
from atoll.config.sections import Train
from atoll.local.bench import Bench
from atoll.models.base import Base
from atoll.models.objective import Objective
from tests.support.federation import SIZES, Site, probe
from tests.support.images import COLOURS, painted
from tests.support.models import WORDS

__all__ = ["image_rows", "pair_rows", "preference_rows", "seen_rows", "site_of"]

Rows = dict[str, list[dict[str, Any]]]


def site_of(
    base: Base,
    task: Objective,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    adapter: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> Site:
    """As `tests.support.federation.site`, for a task that is given."""
    encoded = {client: task.encode(own) for client, own in rows.items()}
    built = build_adapter(base, Adapter(**(adapter or {})), probe(task, encoded))
    bench = Bench(
        model=built.model,
        objective=task,
        examples=lambda client, split: encoded[client],
        settings=Train(**{"per_device_train_batch_size": 3, **(train or {})}),
        head=base.head,
        train_head=True,
        group_size=1,
        num_rounds=3,
        device=torch.device("cpu"),
    )
    exact = torch.promote_types(next(base.model.parameters()).dtype, torch.float32)
    values = {name: value.to(exact) for name, value in built.model.init(0).items()}
    return Site(base, built, bench, values, tuple(rows))


def _drawn(purpose: str, sizes: Mapping[str, int]) -> Rows:
    return {client: [{"draw": random.Random(f"{purpose} {client} {i}")} for i in range(size)]
            for client, size in sizes.items()}  # fmt: skip


def _said(draw: random.Random, longest: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, longest)))


def image_rows(sizes: Mapping[str, int] = SIZES) -> Rows:
    """Rows of image and label, of different shapes."""
    rows: Rows = {}
    for client, own in _drawn("images", sizes).items():
        rows[client] = []
        for i, one in enumerate(own):
            colour = one["draw"].choice(sorted(COLOURS))
            size = (one["draw"].randint(12, 30), one["draw"].randint(12, 30))
            image: np.ndarray = painted(colour, 31 * i + len(client), size=size)
            rows[client].append({"image": image, "label": colour})
    return rows


def seen_rows(sizes: Mapping[str, int] = SIZES) -> Rows:
    """Rows of image and text."""
    words = _drawn("captions", sizes)
    return {
        client: [
            {"image": row["image"], "text": f"{_said(words[client][i]['draw'], 4)}"}
            for i, row in enumerate(own)
        ]
        for client, own in image_rows(sizes).items()
    }


def pair_rows(sizes: Mapping[str, int] = SIZES, *, negatives: bool = False) -> Rows:
    """Rows of anchor, positive and perhaps negative; some positives stand in two rows."""
    rows: Rows = {}
    for client, own in _drawn("pairs", sizes).items():
        rows[client] = []
        for i, one in enumerate(own):
            draw = one["draw"]
            row = {"anchor": _said(draw, 5), "positive": _said(draw, 9)}
            if i % 4 == 3:
                row["positive"] = rows[client][i - 1]["positive"]
            if negatives:
                row["negative"] = _said(draw, 7)
            rows[client].append(row)
    return rows


def preference_rows(sizes: Mapping[str, int] = SIZES) -> Rows:
    """Rows of prompt, chosen and rejected answer."""
    return {
        client: [
            {"prompt": _said(one["draw"], 3), "chosen": " " + _said(one["draw"], 3),
             "rejected": " " + _said(one["draw"], 2)}
            for one in own
        ]
        for client, own in _drawn("preferences", sizes).items()
    }  # fmt: skip
