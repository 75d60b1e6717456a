"""The same training on peft's modules, with and without opacus: one client after another."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from atoll.models.base import Base
from atoll.tree import Tree
from benchmarks.overhead.bare import Pooled

__all__ = ["Noise", "Peer", "peer"]


@dataclass(frozen=True)
class Noise:
    """What opacus is told."""

    clip: float
    multiplier: float
    expected: float


@dataclass(frozen=True)
class Peer:
    """A peft model of a base, its trained parameters under Atoll's names, and what it is given."""

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    causal: bool
    noise: Noise | None

    def trained(
        self, start: Tree, inputs: Mapping[str, Tensor], target: Tensor, steps: Sequence[Tensor],
        rate: float,
    ) -> Tree:  # fmt: skip
        """A client's values after its steps with a fresh AdamW."""
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(start[name])
        optimizer = self._optimizer(rate)
        for rows in steps:
            optimizer.zero_grad()
            loss = self._loss({n: value[rows] for n, value in inputs.items()}, target[rows])
            torch.autograd.backward(loss)
            optimizer.step()
        return {name: value.detach().clone() for name, value in self.parameters.items()}

    def _optimizer(self, rate: float) -> Any:
        plain = torch.optim.AdamW(self.parameters.values(), lr=rate, weight_decay=0.0)
        if self.noise is None:
            return plain
        from opacus.optimizers import DPOptimizer

        return DPOptimizer(
            plain,
            noise_multiplier=self.noise.multiplier,
            max_grad_norm=self.noise.clip,
            expected_batch_size=self.noise.expected,  # type: ignore[arg-type]
        )

    def _loss(self, inputs: Mapping[str, Tensor], target: Tensor) -> Tensor:
        output = self.model(**inputs)
        if not self.causal:
            return cross_entropy(output, target[:, 0])
        return cross_entropy(output.logits[:, :-1].flatten(0, 1), target[:, 1:].flatten())


def peer(base: Base, targets: Sequence[str], noise: Noise | None, *, r: int, alpha: float) -> Peer:
    """LoRA by peft on the same layers as Atoll's, and the head whole where there is one."""
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=list(targets))  # type: ignore[arg-type]
    backbone = copy.deepcopy(base.backbone)
    for module in backbone.modules():
        module._forward_hooks.clear()  # Atoll's own came along
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # opacus sees what is in training mode only
    model: nn.Module = get_peft_model(backbone, config).eval()  # type: ignore[arg-type]
    prefix = "" if base.head is None else "backbone."
    named = {
        prefix + name.removeprefix("base_model.model.").replace(".default.", "."): value
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    if base.head is not None:
        layer = base.model.get_submodule(base.head)
        assert isinstance(layer, nn.Linear)
        head = nn.Linear(layer.in_features, layer.out_features)
        named |= {f"{base.head}.{name}": value for name, value in head.named_parameters()}
        model = Pooled(model, head)
    if noise is not None:
        from opacus import GradSampleModule

        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        model = GradSampleModule(model.train())
    return Peer(model, named, base.head is None, noise)
