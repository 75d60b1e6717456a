"""SGD and AdamW over a stack: parameters of K clients as one matrix [K, P], updated in place.

Formulas are those of torch.optim; the learning rate is [K, 1] or [K, P].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.config.sections import Train
from atoll.tree import Tree

__all__ = ["Optimizer", "adamw", "base_rates", "optimizer", "schedule", "sgd"]


@dataclass(frozen=True)
class Optimizer:
    """init: [K, P] -> moments, each [K, P].

    step: (params, grads, moments, number of this step from 1, learning rate), all in place; rows
    of a stack may be given alone (`moments` narrowed in the same way).
    """

    init: Callable[[Tensor], tuple[Tensor, ...]]
    step: Callable[[Tensor, Tensor, tuple[Tensor, ...], int, Tensor], None]


def optimizer(settings: Train) -> Optimizer:
    """The optimiser that the settings name."""
    if settings.optimizer == "sgd":
        return sgd(momentum=settings.momentum, weight_decay=settings.weight_decay)
    betas = (settings.adam_beta1, settings.adam_beta2)
    return adamw(betas=betas, eps=settings.adam_epsilon, weight_decay=settings.weight_decay)


def sgd(*, momentum: float = 0.0, weight_decay: float = 0.0) -> Optimizer:
    """w ← w − η·m with m ← μ·m + g; torch.optim.SGD."""

    def init(params: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(params),) if momentum else ()

    def step(
        params: Tensor, grads: Tensor, moments: tuple[Tensor, ...], number: int, rate: Tensor
    ) -> None:
        if weight_decay:
            grads.add_(params, alpha=weight_decay)
        if moments:
            grads = moments[0].mul_(momentum).add_(grads)
        params.addcmul_(grads, rate, value=-1)

    return Optimizer(init, step)


def adamw(
    *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """Decoupled weight decay and bias-corrected moments; torch.optim.AdamW."""
    beta1, beta2 = betas

    def init(params: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(params), torch.zeros_like(params)

    def step(
        params: Tensor, grads: Tensor, moments: tuple[Tensor, ...], number: int, rate: Tensor
    ) -> None:
        first, second = moments
        first.lerp_(grads, 1 - beta1)
        second.mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
        if weight_decay:
            params.mul_(1 - rate * weight_decay)
        # grads is spent; its memory holds the denominator.
        torch.sqrt(second, out=grads).mul_((1 - beta2**number) ** -0.5).add_(eps)
        params.addcmul_(torch.div(first, grads, out=grads), rate, value=-1 / (1 - beta1**number))

    return Optimizer(init, step)


def base_rates(settings: Train, like: Tree, head: str | None) -> Tensor:
    """[1, P] where the head has a rate of its own, else [1, 1]; float64."""
    own = settings.head_learning_rate
    if own is None or head is None:
        return torch.tensor([[settings.learning_rate]], dtype=torch.float64)
    rates = [own if name.startswith(f"{head}.") else settings.learning_rate for name in like]
    sizes = torch.tensor([value.numel() for value in like.values()])
    return torch.tensor(rates, dtype=torch.float64).repeat_interleave(sizes).unsqueeze(0)


def schedule(settings: Train, *, position: Tensor, horizon: Tensor) -> Tensor:
    """The factor on the learning rate at `position` of `horizon` steps, as in transformers.

    position and horizon count a client's steps over all rounds; they are broadcast to one shape.
    """
    position = position.to(torch.float64)
    warm = float(settings.warmup_steps)
    kind = settings.lr_scheduler_type
    rest = ((horizon - position) / (horizon - warm).clamp(min=1)).clamp(0, 1)
    factor = torch.ones_like(position)
    if kind == "linear":
        factor = rest
    elif kind == "cosine":
        factor = 0.5 * (1 + torch.cos(torch.pi * (1 - rest)))
    if warm and kind != "constant":
        factor = torch.where(position < warm, position / warm, factor)
    return factor
