"""From token vectors to one vector a row, as the model was trained, and the linear head on it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from atoll import rng
from atoll.errors import ModelError

__all__ = [
    "PooledClassifier",
    "Pooling",
    "RandomFeatures",
    "last_token",
    "output_layer",
    "pool",
]

Pooling = Literal["mean", "cls", "last"]


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling, *, normalize: bool) -> Tensor:
    """[N, T, d] and a mask [N, T] to [N, d]."""
    if pooling == "cls":
        pooled = hidden[:, 0]
    elif pooling == "last":
        pooled = last_token(hidden, mask)
    else:
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
    return nn.functional.normalize(pooled, dim=-1) if normalize else pooled


class RandomFeatures(nn.Module):
    """φ(x) = √(2/D)·cos(Ω·x + u): a linear head on φ is a Gaussian-kernel machine on x.

    Rahimi and Recht, NeurIPS 2007; Ω in orthogonal blocks as in Yu et al., NeurIPS 2016
    (https://arxiv.org/abs/1610.09072). Federated with ridge regression it is Fed3R-RF. Every client
    draws the same Ω and u from the experiment's seed; x is expected to have length 1.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, features: int, *, seed: int) -> None:
        super().__init__()
        normal = rng.generator(seed, "random features")
        blocks = [
            torch.linalg.qr(torch.randn(width, width, generator=normal, dtype=torch.float64))[0]
            for _ in range(-(-features // width))
        ]
        lengths = torch.randn(features, width, generator=normal, dtype=torch.float64).norm(dim=1)
        weight = torch.cat(blocks)[:features] * lengths.unsqueeze(1)
        bias = 2 * torch.pi * torch.rand(features, generator=normal, dtype=torch.float64)
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """[N, width] to [N, features]."""
        angles = nn.functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        return math.sqrt(2 / len(self.bias)) * torch.cos(angles)


class PooledClassifier(nn.Module):
    """Backbone, pooling, random features if asked for, and a linear head that starts at zero."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        pooling: Pooling,
        normalize: bool,
        num_labels: int,
        random: RandomFeatures | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling: Pooling = pooling
        self.normalize = normalize
        self.random = random
        width = backbone.config.hidden_size if random is None else len(random.bias)  # type: ignore[union-attr]
        self.classifier = nn.Linear(width, num_labels)  # type: ignore[arg-type]
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [N, labels]."""
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        # Sums over tokens, lengths and angles want more than the three digits of bfloat16.
        hidden = output.last_hidden_state.to(self.classifier.weight.dtype)
        pooled = pool(hidden, attention_mask, self.pooling, normalize=self.normalize)
        if self.random is not None:
            pooled = self.random(pooled)
        logits: Tensor = self.classifier(pooled)
        return logits


def output_layer(model: nn.Module) -> str:
    """The name of the last linear layer: the head of an Auto classification model."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    heads = [name for name in names if name.split(".")[0] in {"classifier", "score"}]
    if not heads:
        raise ModelError(
            f"{type(model).__name__} has no linear head named classifier or score; "
            "set model.pooling to mean or cls"
        )
    return str(heads[-1])


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """[N, T, d] to the vector of each row's last token, where decoders put their summary."""
    last = mask.long().cumsum(1).argmax(1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
