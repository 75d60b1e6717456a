"""Local training as anyone would write it: transformers, peft and torch.optim, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from atoll.config.sections import Train
from atoll.models.objective import Example

__all__ = ["causal_loss", "classifier_loss", "load_into", "plain_training"]

Loss = Callable[[Example], Tensor]


def classifier_loss(backbone: nn.Module, head: nn.Linear) -> Loss:
    """Mean pooling over an unpadded row, a linear head, cross-entropy."""

    def loss(example: Example) -> Tensor:
        ids = torch.tensor(example.ids.tolist()).unsqueeze(0)
        pooled = backbone(input_ids=ids).last_hidden_state[0].mean(0)
        return -head(pooled).log_softmax(-1)[int(example.target[0])]

    return loss


def causal_loss(model: nn.Module) -> Loss:
    """The sum of −log p over an unpadded row (the model's own loss would round to float32)."""

    def loss(example: Example) -> Tensor:
        ids = torch.tensor(example.ids.tolist()).unsqueeze(0)
        chances = model(input_ids=ids).logits[0].log_softmax(-1)
        wanted = list(enumerate(example.target.tolist()))[1:]
        chosen = [chances[place - 1, token] for place, token in wanted if token >= 0]
        return -sum(chosen, torch.zeros((), dtype=chances.dtype))

    return loss


def load_into(model: nn.Module, values: Mapping[str, Tensor], *, prefix: str = "") -> list[str]:
    """Copy Atoll's LoRA values into a peft model; returns our names in its parameters' order."""
    names = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            ours = prefix + name.removeprefix("base_model.model.").replace(".default.", ".")
            parameter.data = values[ours].clone()
            names.append(ours)
    return names


def plain_training(
    parameters: Sequence[nn.Parameter],
    loss: Loss,
    count: Callable[[Example], int],
    examples: Sequence[Example],
    steps: Sequence[Sequence[int]],
    settings: Train,
    *,
    round: int = 1,
    num_rounds: int = 1,
    proximal: float = 0.0,
    offset: Sequence[Tensor] | None = None,
) -> list[float]:
    """Train `parameters` in place; returns the loss of each step."""
    made: torch.optim.Optimizer
    if settings.optimizer == "sgd":
        made = torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum,
                               weight_decay=settings.weight_decay)  # fmt: skip
    else:
        made = torch.optim.AdamW(parameters, lr=settings.learning_rate,
                                 betas=(settings.adam_beta1, settings.adam_beta2),
                                 eps=settings.adam_epsilon,
                                 weight_decay=settings.weight_decay)  # fmt: skip
    course = get_scheduler(settings.lr_scheduler_type, made, num_warmup_steps=settings.warmup_steps,
                           num_training_steps=num_rounds * len(steps))  # fmt: skip
    for _ in range((round - 1) * len(steps)):
        made.step()
        course.step()
    start = [parameter.detach().clone() for parameter in parameters]
    losses = []
    for rows in steps:
        made.zero_grad()
        total = sum(count(examples[row]) for row in rows)
        value = sum(loss(examples[row]) for row in rows) / max(total, 1)
        losses.append(value.item())
        pull = sum(((p - s) ** 2).sum() for p, s in zip(parameters, start, strict=True))
        (value + proximal / 2 * pull).backward()
        if settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        for parameter, extra in zip(parameters, offset or (), strict=False):
            parameter.grad += extra
        made.step()
        course.step()
    return losses
