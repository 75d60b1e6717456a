"""Values that replace a module's own, one set a client: heads, biases, and whole layers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from atoll.adapters.site import Frame, Site, split_clients
from atoll.tree import Tree

__all__ = ["bias_site", "linear_site", "norm_site", "precise"]


def precise(value: Tensor) -> Tensor:
    """A copy to train: a step of training is lost in less than float32."""
    return value.detach().clone().to(torch.promote_types(value.dtype, torch.float32))


def linear_site(name: str, module: nn.Module, *, last: bool = True) -> Site:
    """A whole linear layer a client, GPT-2's transposed one included.

    Values that are not stacked serve every client.

    last: the layer gives the logits, which keep the values' precision; what follows any other
        layer computes in the model's.
    """
    names = [f"{name}.{key}" for key, _ in module.named_parameters()]
    transposed = isinstance(module, Conv1D)

    def init(generator: torch.Generator) -> Tree:
        return {f"{name}.{key}": precise(value) for key, value in module.named_parameters()}

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        weight = values[names[0]].expand(frame.clients, -1, -1)
        weight = weight if transposed else weight.transpose(1, 2)
        x = split_clients(x.to(weight.dtype), frame.clients)
        if len(names) == 1:
            found = torch.bmm(x, weight)
        else:
            found = torch.baddbmm(values[names[1]].unsqueeze(1), x, weight)
        return found.view_as(out) if last else found.view_as(out).to(out.dtype)

    return Site(name, init, apply)


def norm_site(name: str, module: nn.Module) -> Site | None:
    """A normalisation with its scale (and shift) a client; None for any other module.

    It must be w·n(x) + b, or (1 + w)·n(x) as Gemma has it: tried on numbers, because every family
    has a class of its own.
    """
    own = dict(module.named_parameters())
    weight = own.get("weight")
    if own.keys() - {"weight", "bias"} or weight is None or weight.dim() != 1:
        return None
    unit = _unit(module)
    if unit is None:
        return None
    plain, lifted = unit

    def init(generator: torch.Generator) -> Tree:
        return {f"{name}.{key}": precise(value) for key, value in own.items()}

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        scale = values[f"{name}.weight"].unsqueeze(1)
        normal = split_clients(plain.to(x.device)(x).to(scale.dtype), frame.clients)
        found = normal * (1 + scale if lifted else scale)
        if "bias" in own:
            found = found + values[f"{name}.bias"].unsqueeze(1)
        return found.view_as(out).to(out.dtype)

    return Site(name, init, apply)


def _unit(module: nn.Module) -> tuple[nn.Module, bool] | None:
    """The module with a scale that does nothing, and whether that scale is 0 (Gemma) and not 1."""
    weight = module.get_parameter("weight")
    plain = copy.deepcopy(module).requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, weight.numel(), generator=draw).to(weight)
    biased = plain._parameters.get("bias") is not None
    if biased:
        plain.get_parameter("bias").zero_()
    try:
        at_two, at_one, at_zero = (_scaled(plain, to, x) for to in (2.0, 1.0, 0.0))
    except (RuntimeError, TypeError, ValueError):
        return None
    lifted = bool(at_zero.any())
    normal = at_zero if lifted else at_one
    if not torch.allclose(at_two, (3 if lifted else 2) * normal, rtol=1e-2):
        return None
    plain.get_parameter("weight").fill_(0.0 if lifted else 1.0)
    return plain, lifted


def _scaled(module: nn.Module, to: float, x: Tensor) -> Tensor:
    with torch.no_grad():
        module.get_parameter("weight").fill_(to)
        found = module(x)
    assert isinstance(found, Tensor)
    return found


def bias_site(name: str, module: nn.Module) -> Site:
    """A module's bias a client (BitFit, Ben Zaken et al. 2022, arXiv 2106.10199)."""
    key = f"{name}.bias"
    own, first = module.get_parameter("bias"), _channels_first(module)

    def init(generator: torch.Generator) -> Tree:
        return {key: precise(own)}

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        change = (values[key] - own.detach()).to(out.dtype).unsqueeze(1)
        if not first:
            return (split_clients(out, frame.clients) + change).view_as(out)
        places = (1,) * (out.dim() - 2)
        split = out.reshape(frame.clients, -1, *out.shape[1:])
        return (split + change.reshape(*change.shape, *places)).view(out.shape)

    return Site(name, init, apply)


def _channels_first(module: nn.Module) -> bool:
    """Whether features stand before places, [b, d, …], as convolutions give them."""
    # ConvNeXt's normalisation is a LayerNorm that may read either order.
    convolves = isinstance(module, _ConvNd | nn.GroupNorm)
    return convolves or getattr(module, "data_format", None) == "channels_first"
