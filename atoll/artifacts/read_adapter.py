"""The trained values of an adapter folder, checked against the model that they are for."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atoll.artifacts.peft_layout import INSIDE
from atoll.errors import ModelError
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.tree import Tree

__all__ = ["read_adapter"]


def read_adapter(setup: Setup, folder: Path) -> Tree:
    """The trained values in an adapter folder, under the model's names.

    Raises:
        ModelError: when a file is broken, or names and shapes are not the model's.
    """
    prefix = setup.base.prefix
    found = _from_peft(setup, folder)
    plain = _tensors(folder / "model.safetensors")
    found |= {prefix + name: value for name, value in plain.items()}
    found |= _tensors(folder / "head.safetensors")
    # Written for readers without Atoll, which makes them again from the seed.
    fixed = {name for name, _ in setup.base.model.named_buffers()}
    values = {name: value for name, value in found.items() if name not in fixed}
    _check_fit(values, model_values(setup.start.server), setup, folder)
    return values


def _from_peft(setup: Setup, folder: Path) -> Tree:
    """The values of PEFT's file, without what is the same at every client."""
    path, peft = folder / "adapter_model.safetensors", setup.built.peft
    found = _tensors(path)
    keys = {} if peft is None else peft.keys
    for key, value in ({} if peft is None else peft.fixed).items():
        other = found.pop(key, None)
        if other is not None and not _alike(other, value):
            raise ModelError(
                f"{path} holds another {key} than adapter.method "
                f"{setup.experiment.adapter.method} makes here: it was trained under other "
                "settings (adapter.config) or on another base"
            )
    return {
        keys.get(key, setup.base.prefix + key.removeprefix(INSIDE)): value
        for key, value in found.items()
    }


def _alike(a: Tensor, b: Tensor) -> bool:
    """Equal but for what another machine's arithmetic rounds otherwise."""
    if a.shape != b.shape:
        return False
    if not b.is_floating_point():
        return torch.equal(a, b.cpu())
    return torch.allclose(a.double(), b.cpu().double(), rtol=1e-3, atol=1e-5)


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error


def _check_fit(values: Tree, like: Tree, setup: Setup, folder: Path) -> None:
    model = setup.base.source.hub_id
    for name in like:
        if name not in values:
            raise ModelError(f"{folder} holds no {name}, which the adapter of {model} needs")
    for name, value in values.items():
        if name not in like:
            raise ModelError(f"{folder} holds {name}, which has no place in {model}")
        if value.shape != like[name].shape:
            raise ModelError(
                f"{folder}: {name} is {tuple(value.shape)}, but {model} needs "
                f"{tuple(like[name].shape)}"
            )
