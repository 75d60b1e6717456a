"""Plain Python that puts an adapter on its model where PEFT has no such type.

It is run here to verify an export, and its own text stands in the model card: one and the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch

__all__ = ["activation_of", "add_bottlenecks", "bottleneck_lines"]

_ACTIVATIONS: Mapping[str, torch.nn.Module] = {
    "gelu": torch.nn.GELU(),
    "relu": torch.nn.ReLU(),
    "silu": torch.nn.SiLU(),
    "tanh": torch.nn.Tanh(),
}


def add_bottlenecks(
    model: torch.nn.Module, values: dict[str, torch.Tensor], activation: torch.nn.Module
) -> None:
    """Put trained bottlenecks on a model's layers, and load whatever else trained."""
    inside = {name: values.pop(name) for name in list(values) if ".adapter_" in name}
    assert not model.load_state_dict(values, strict=False).unexpected_keys

    def change(layer: str, out: torch.Tensor) -> torch.Tensor:
        down, up = (
            (inside[f"{layer}.adapter_{part}.weight"], inside[f"{layer}.adapter_{part}.bias"])
            for part in ("down", "up")
        )
        low = torch.nn.functional.linear(out.to(down[0].dtype), *down)
        return torch.nn.functional.linear(activation(low), *up).to(out.dtype)

    for layer in {name.partition(".adapter_")[0] for name in inside}:
        model.get_submodule(layer).register_forward_hook(
            lambda module, args, out, layer=layer: out + change(layer, out)
        )


def activation_of(name: str) -> torch.nn.Module:
    """The activation inside a bottleneck, as `adapter.activation` names it."""
    return _ACTIVATIONS[name]


def bottleneck_lines(activation: str) -> str:
    """Lines that put trained bottlenecks, and whatever else trained, on a loaded `model`."""
    name = type(activation_of(activation)).__name__
    call = f'add_bottlenecks(model, load_file("model.safetensors"), torch.nn.{name}())'
    return f"\n\n{inspect.getsource(add_bottlenecks)}\n\n{call}"
