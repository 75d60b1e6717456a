"""Whether an exported model says what the trained one says: outputs on the same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from atoll import rng
from atoll.adapters.site import Frame
from atoll.adapters.stacked import StackedModel
from atoll.experiment.setup import Setup
from atoll.models.objective import Batch, Example
from atoll.tree import Tree

__all__ = ["Gap", "batches_to_compare", "gap_between", "outputs_of"]

ROWS = 6
LENGTH = 48  # tokens: the outputs of a language model have its whole vocabulary for each


@dataclass(frozen=True)
class Gap:
    """The largest difference between two models' outputs, and the largest output of the first."""

    difference: float
    largest: float
    rows: int

    @property
    def relative(self) -> float:
        """The difference as a share of the largest output; NaN where either is not a number."""
        if self.difference == 0:
            return 0.0
        return self.difference / self.largest if self.largest else float("inf")

    def within(self, tolerance: float) -> bool:
        """Whether the difference is that small; what is no number never is."""
        return self.relative <= tolerance


def batches_to_compare(setup: Setup, *, made_up: bool) -> list[Batch]:
    """A batch of clients' rows, and one of the same form with drawn contents.

    made_up: the setup's data are a row that stands in for them.
    """
    objective = setup.bench.objective
    found = objective.encode(_longer(setup)) if made_up else _some_examples(setup)
    batch = objective.collate([example.cut(LENGTH) for example in found[:ROWS]])
    return [batch, _drawn(batch, setup)]


def outputs_of(model: StackedModel, values: Tree, batches: Sequence[Batch]) -> list[Tensor]:
    """What a model says of each batch, on the CPU; nothing at padding, which nobody asks for."""
    device = next(model.model.parameters()).device
    stacked = {name: value.unsqueeze(0).to(device) for name, value in values.items()}
    with torch.inference_mode():
        found = [model.forward(stacked, batch.to(device).inputs, Frame(1)) for batch in batches]
    return [_real(output.cpu(), batch) for output, batch in zip(found, batches, strict=True)]


def _real(output: Tensor, batch: Batch) -> Tensor:
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    mask = batch.inputs.get("attention_mask")
    if mask is None or output.shape[:-1] != mask.shape:
        return output
    return output.masked_fill(mask.unsqueeze(-1) == 0, 0.0)


def gap_between(trained: Sequence[Tensor], found: Sequence[Tensor]) -> Gap:
    """How far outputs are from the trained model's; infinitely, where they have other shapes."""
    largest = max(float(one.abs().max()) for one in trained)
    rows = sum(len(one) for one in trained)
    if [one.shape for one in trained] != [one.shape for one in found]:
        return Gap(float("inf"), largest, rows)
    apart = [(a.double() - b.double()).abs().max() for a, b in zip(trained, found, strict=True)]
    # torch's maximum keeps what is not a number, which Python's may lose.
    return Gap(float(torch.stack(apart).max()), largest, rows)


def _some_examples(setup: Setup) -> list[Example]:
    """Rows of several clients in turn, held-out ones where there are any."""
    found: list[Example] = []
    for client in setup.data.clients:
        for split in ("test", "train"):
            found += setup.bench.examples(client, split)[:2]
        if len(found) >= ROWS:
            break
    return found


def _longer(setup: Setup) -> list[Mapping[str, Any]]:
    """The row that stands in, with its texts said several times over."""
    row = setup.data.rows(setup.data.clients[0], "train")[0]
    return [
        {
            name: " ".join([value] * times) if isinstance(value, str) and name != "label" else value
            for name, value in row.items()
        }
        for times in (1, 2, 5)
    ]


def _drawn(batch: Batch, setup: Setup) -> Batch:
    draws = rng.generator(0, "rows to compare")
    inputs, config = dict(batch.inputs), setup.base.backbone.config
    for name, value in batch.inputs.items():
        if name.endswith("input_ids"):
            tokens = int(config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
            inputs[name] = torch.randint(tokens, value.shape, generator=draws)
        elif value.is_floating_point():
            inputs[name] = torch.randn(value.shape, generator=draws).to(value.dtype)
    return replace(batch, inputs=inputs)
