"""From token vectors to one vector a row, as the model was trained, and the linear head on it."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from atoll import rng
from atoll.errors import ModelError
from atoll.models.locate import Source, find_file

__all__ = [
    "PooledClassifier",
    "Pooling",
    "RandomFeatures",
    "last_token",
    "output_layer",
    "pool",
    "pooling_of",
]

Pooling = Literal["mean", "cls"]


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling, *, normalize: bool) -> Tensor:
    """[N, T, d] and a mask [N, T] to [N, d]."""
    if pooling == "cls":
        pooled = hidden[:, 0]
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


def pooling_of(
    source: Source, pooling: Literal["auto", "mean", "cls", "model"], normalize: bool | None
) -> tuple[Pooling | None, bool]:
    """Pooling and normalisation: what was asked, else what the sentence encoder was trained with.

    None means the Auto class's own head. Reads the files that sentence-transformers writes
    (modules.json and the pooling module's config.json).
    """
    trained, normalized = _trained_pooling(source)
    chosen = trained if pooling == "auto" else pooling
    if chosen == "model":
        chosen = None
    return chosen, normalized if normalize is None else normalize


def _trained_pooling(source: Source) -> tuple[Pooling | None, bool]:
    try:
        listed = find_file(source, "modules.json")
        if listed is None:
            return None, False
        modules = json.loads(listed.read_text())
        kinds = {str(m["type"]).rsplit(".", 1)[-1]: str(m["path"]) for m in modules}
        found = find_file(source, f"{kinds['Pooling']}/config.json")
        modes = _pooling_modes(json.loads(found.read_text())) if found is not None else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{source.hub_id}: modules.json cannot be read as a sentence encoder's ({error!r}); "
            "set model.pooling to mean, cls or model"
        ) from error
    normalized = "Normalize" in kinds
    if modes == ["mean"]:
        return "mean", normalized
    return ("cls" if modes == ["cls"] else None), normalized


def _pooling_modes(settings: dict[str, Any]) -> list[str]:
    """Version 6 writes pooling_mode: mean, or a list; older ones a switch for each kind."""
    named = settings.get("pooling_mode")
    if named is not None:
        return [named] if isinstance(named, str) else list(named)
    old = "pooling_mode_"
    return [
        key.removeprefix(old).removesuffix("_tokens").removesuffix("_token")
        for key, value in settings.items()
        if key.startswith(old) and value
    ]


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
