"""Direct preference optimisation: of two answers to a prompt, the chosen one.

Rafailov et al. 2023, arXiv 2305.18290, eq. 7; with label smoothing as in Mitchell 2023 (cDPO). The
reference is the base model without what trains; its log-probabilities are computed once a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import logsigmoid

from atoll.models.collate import IGNORED, collate_text
from atoll.models.encode import uncut
from atoll.models.metrics import token_losses
from atoll.models.objective import (
    Batch,
    Example,
    Metric,
    Objective,
    column_sums,
    no_terms,
    unsettled,
)
from atoll.models.texts import example_of

__all__ = ["Dpo", "preference", "reference_of"]

Reference = Callable[[Batch], Tensor]
"""A batch to what the base model gives its answers, log π_ref [N, 2]."""


@dataclass(frozen=True)
class Dpo:
    """β of the paper, and the share of rows whose answers are taken for swapped."""

    beta: float = 0.1
    label_smoothing: float = 0.0


def preference(
    tokenizer: Any,
    reference: Reference,
    dpo: Dpo,
    *,
    max_length: int,
    truncation: bool = True,
    batch_size: int = 8,
) -> Objective:
    """The loss of rows of prompt, chosen and rejected, as texts or as lists of messages.

    Rows of which an answer has no token within max_length are left out.
    batch_size: rows that the reference reads at once.
    """
    collate = functools.partial(_collate, pad_token_id=tokenizer.pad_token_id)

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        pairs = [_pair(tokenizer, row).cut(max_length) for row in rows]
        if not truncation:
            uncut(pairs, max_length=max_length)
        kept = [pair for pair in pairs if all(map(_predictions, _answers(pair)))]
        known: dict[int, np.ndarray] = {}
        order = sorted(range(len(kept)), key=lambda place: len(kept[place]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            found = reference(collate([kept[place] for place in places]))
            known.update(zip(places, found.double().cpu().numpy(), strict=True))
        return [replace(pair, known=known[place]) for place, pair in enumerate(kept)]

    return Objective(
        metric=_rewards(dpo),
        encode=encode,
        count=lambda example: 1,
        collate=collate,
        terms=no_terms,
        losses=lambda logits, batch, terms: _losses(logits, batch, dpo),
        drops_rows=True,
    )


def reference_of(model: nn.Module, dtype: torch.dtype) -> Reference:
    """What the model itself says, computed in a precision: nothing that trains takes part."""

    def reference(batch: Batch) -> Tensor:
        device = next(model.parameters()).device
        batch = batch.to(device)
        with torch.inference_mode():
            if next(model.parameters()).dtype == dtype:
                logits = model(**batch.inputs).logits
            else:
                named = (*model.named_parameters(), *model.named_buffers())
                exact = {n: v.to(dtype) for n, v in named if v.is_floating_point()}
                logits = functional_call(model, exact, (), dict(batch.inputs)).logits
            return _log_probabilities(logits, batch)

    return reference


def _pair(tokenizer: Any, row: Mapping[str, Any]) -> Example:
    chosen, rejected = (
        example_of(
            tokenizer, {"prompt": row["prompt"], "completion": row[name]}, completion_only=True
        )
        for name in ("chosen", "rejected")
    )
    return replace(chosen, pair=rejected)


def _answers(pair: Example) -> Iterator[Example]:
    assert pair.pair is not None, "a preference is of two answers"
    yield replace(pair, pair=None)
    yield pair.pair


def _predictions(example: Example) -> int:
    return int((example.target[1:] != IGNORED).sum())


def _collate(examples: Sequence[Example | None], *, pad_token_id: int) -> Batch:
    """[N·2, T]: chosen and rejected of a row one after the other; targets are [N, 2, T]."""
    flat = [
        answer
        for example in examples
        for answer in ((None, None) if example is None else _answers(example))
    ]
    batch = collate_text(flat, pad_token_id=pad_token_id, token_targets=True)
    nothing = np.zeros(2)
    known = [nothing if x is None or x.known is None else x.known for x in examples]
    target = batch.target.view(len(examples), 2, -1)
    return replace(batch, target=target, views=2, known=torch.from_numpy(np.stack(known)))


def _log_probabilities(logits: Tensor, batch: Batch) -> Tensor:
    """log π of both answers, [N, 2]."""
    flat = replace(batch, target=batch.target.flatten(0, 1))
    return -token_losses(logits, flat).view(-1, 2)


def _rewards_of(logits: Tensor, batch: Batch, beta: float) -> tuple[Tensor, Tensor]:
    """β·(log π − log π_ref) of both answers [N, 2], and what of their difference is rounding."""
    assert batch.known is not None, "a batch of preferences knows its reference"
    given = _log_probabilities(logits, batch)
    known = batch.known.to(given.dtype)
    rounding = 4 * torch.finfo(given.dtype).eps * (given.abs() + known.abs()).sum(1)
    return beta * (given - known), beta * rounding


def _row_losses(rewards: Tensor, dpo: Dpo) -> Tensor:
    margin, smoothing = rewards[:, 0] - rewards[:, 1], dpo.label_smoothing
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)


def _losses(logits: Tensor, batch: Batch, dpo: Dpo) -> Tensor:
    rewards, _ = _rewards_of(logits, batch, dpo.beta)
    real = (batch.target != IGNORED).any(2).any(1)
    return torch.where(real, _row_losses(rewards, dpo), 0.0)


def _rewards(dpo: Dpo) -> Metric:
    """The share of rows whose chosen answer has the higher reward, the mean margin, the loss."""

    def evidence(logits: Tensor, batch: Batch) -> Tensor:
        rewards, rounding = _rewards_of(logits, batch, dpo.beta)
        margin = rewards[:, 0] - rewards[:, 1]
        # An adapter that does nothing yet is right in half of the cases, whatever rounding says.
        right = torch.where(margin.abs() <= rounding, 0.5, (margin > 0).to(margin.dtype))
        return torch.stack([right, margin, _row_losses(rewards, dpo)], dim=1).double()

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        names = ("reward_accuracy", "reward_margin", "loss")
        return {name: total / count for name, total in zip(names, sums, strict=True)}

    return Metric("reward_accuracy", True, evidence, finals, unsettled, column_sums, 3)
