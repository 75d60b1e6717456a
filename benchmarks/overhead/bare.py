"""The yardstick: federated averaging by hand in plain PyTorch, without a line of Atoll.

Clients train one after another on a shared frozen base: a hand-written LoRA module, autograd,
`torch.optim.AdamW`, and a running mean of what they changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BareModel", "Client", "LoraLinear", "Pooled", "federated_round", "train_client"]


@dataclass(frozen=True)
class Client:
    """One client's rows as tensors, and which of them go into each of its steps."""

    inputs: Mapping[str, Tensor]
    target: Tensor
    steps: Sequence[Tensor]


class LoraLinear(nn.Module):
    """W0·x + s·B·A·x on a frozen linear layer."""

    def __init__(self, base: nn.Linear, *, r: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a = nn.Parameter(base.weight.new_zeros(r, base.in_features))
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, r))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.a), self.b) * self.scale


class Pooled(nn.Module):
    """An encoder, the mean of its token vectors, and a linear head."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        weight = attention_mask.unsqueeze(-1).to(hidden.last_hidden_state.dtype)
        pooled = (hidden.last_hidden_state * weight).sum(1) / weight.sum(1)
        return self.head(pooled)


class BareModel:
    """A frozen model with LoRA in the modules that are named, and the parameters that train."""

    def __init__(
        self, model: nn.Module, targets: Sequence[str], *, r: int, scale: float, causal: bool
    ) -> None:
        self.model, self.causal = model, causal
        model.requires_grad_(False).eval()
        for name in targets:
            parent, _, leaf = name.rpartition(".")
            layer = LoraLinear(model.get_submodule(name), r=r, scale=scale)
            setattr(model.get_submodule(parent), leaf, layer)
        if isinstance(model, Pooled):
            model.head.requires_grad_(True)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def loss(self, inputs: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """The mean loss of a batch."""
        output = self.model(**inputs)
        if not self.causal:
            return F.cross_entropy(output, target[:, 0])
        return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), target[:, 1:].flatten())


def train_client(
    model: BareModel, client: Client, *, lr: float, fused: bool | None = None
) -> float:
    """A client's steps with a fresh AdamW, from the parameters as they are; its mean loss."""
    optimizer = torch.optim.AdamW(model.parameters.values(), lr=lr, weight_decay=0.0, fused=fused)
    total = 0.0
    for rows in client.steps:
        inputs = {name: value[rows] for name, value in client.inputs.items()}
        loss = model.loss(inputs, client.target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(client.steps)


def federated_round(
    model: BareModel,
    clients: Sequence[Client],
    start: Mapping[str, Tensor],
    *,
    lr: float,
    fused: bool | None = None,
) -> tuple[dict[str, Tensor], list[float]]:
    """Every client from `start`, one after another: the mean of their updates, and their losses."""
    rows = [len(client.target) for client in clients]
    mean = {name: torch.zeros_like(value) for name, value in start.items()}
    losses: list[float] = []
    for client, count in zip(clients, rows, strict=True):
        with torch.no_grad():
            for name, value in model.parameters.items():
                value.copy_(start[name])
        losses.append(train_client(model, client, lr=lr, fused=fused))
        with torch.no_grad():
            for name, value in model.parameters.items():
                mean[name] += (value - start[name]) * (count / sum(rows))
    return mean, losses
