"""The values of an adapter's folder, PEFT's or Atoll's, checked against the model they are for."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atoll.adapters.plan import INSIDE, PeftFile
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.tree import Tree

__all__ = ["check_stored", "stored_values"]


def stored_values(base: Base, peft: PeftFile | None, folder: Path) -> Tree:
    """What trains, out of an adapter's folder, under the model's names.

    Raises:
        ModelError: when a file is broken, or what PEFT's holds beside the values is another.
    """
    found = _from_peft(base, peft, folder)
    plain = _tensors(folder / "model.safetensors")
    found |= {base.prefix + name: value for name, value in plain.items()}
    found |= _tensors(folder / "head.safetensors")
    # Written for readers without Atoll, which makes them again from the seed.
    fixed = {name for name, _ in base.model.named_buffers()}
    return {name: value for name, value in found.items() if name not in fixed}


def check_stored(values: Tree, like: Tree, folder: Path, *, model: str) -> None:
    """Refuse values that are not, by name and shape, those that `model` trains.

    Raises:
        ModelError: with the first name that is missing, has no place, or has another shape.
    """
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


def _from_peft(base: Base, peft: PeftFile | None, folder: Path) -> Tree:
    """The values of PEFT's file, without what is the same at every client."""
    path = folder / "adapter_model.safetensors"
    found = _tensors(path)
    keys = {} if peft is None else peft.keys
    for key, value in ({} if peft is None else peft.fixed).items():
        other = found.pop(key, None)
        if other is not None and not _alike(other, value):
            raise ModelError(
                f"{path} holds another {key} than is made here: it was trained under other "
                "settings (adapter.config) or on another base"
            )
    return {
        keys.get(key, base.prefix + key.removeprefix(INSIDE)): value for key, value in found.items()
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
