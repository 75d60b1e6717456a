"""`atoll server`, run by somebody who plants a trap in what it sends from round 2 on.

python -m tests.support.dishonest /path/to/atoll server experiment.yaml …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from atoll.audit.planted import Ways, plant
from atoll.cli.main import main
from atoll.config import Loaded
from atoll.core import Payload, Server, Stage, State
from atoll.experiment import program
from atoll.experiment.wrapping import wrapped
from atoll.local.bench import Bench, broadcast_values
from atoll.tree import digest

__all__ = ["TEXTS", "WAYS"]

BLOCK = "backbone.encoder.layer."
WAYS = Ways(
    up=f"{BLOCK}0.intermediate.dense",
    down=f"{BLOCK}0.output.dense",
    silenced=f"{BLOCK}1.attention.output.dense",
    trap=f"{BLOCK}1.intermediate.dense",
)
TEXTS = ("reef tide", "stern mast", "sail")
"""Of which the first is looked for."""


def _dishonest(loaded: Loaded, bench: Bench, server: Server, packing: Sequence[Stage]) -> Server:
    honest = wrapped(loaded, bench, server, packing)
    labels = loaded.experiment.data.labels or ("",)
    rows: list[dict[str, object]] = [{"text": text, "label": labels[0]} for text in TEXTS]
    begun: list[Tensor] = []

    def broadcast(state: State, client: str) -> Payload:
        payload = honest.broadcast(state, client)
        now = digest(state["adapter"])
        begun.append(now)
        if torch.equal(now, begun[0]):
            return payload
        target, *others = bench.objective.encode(rows)
        values = plant(bench, broadcast_values(payload), WAYS, target, others).values
        return {
            name: channel.with_tree({key: values[key] for key in channel.tree})
            for name, channel in payload.items()
        }

    return replace(honest, broadcast=broadcast)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    program.wrapped = _dishonest
    main()
