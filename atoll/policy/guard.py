"""What a client accepts as a model: a broadcast, held against the last one that it accepted.

A dishonest server can plant weights with which one text betrays itself in an update (Vu et al.,
AISTATS 2024, arXiv 2403.04784). Frozen weights are compared by fingerprint before anything trains;
this looks at those that do train. Training moves all of a model by about as much; a trap replaces a
few tensors or neurons, doubles neurons with their signs turned, shifts some so far that they never
fire or always do, or lets an adapter outweigh the layer that it adapts. What is spread over many
rounds, or hidden in a change of the whole model, is not found: only frozen weights, secure
aggregation and noise bound what a server can learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from atoll.errors import PolicyError
from atoll.tree import Tree, finite

__all__ = ["RULE", "Frozen", "Known", "check_broadcast", "movement"]

RULE = "guard"

MOVED = 0.75
"""Most that a tensor, or a neuron, moves between two broadcasts, in its size, however many rounds
a server says lie between…"""
OUTLIER = 8.0
"""… where it also moves by so many times what others do."""
SHIFT = 10.0
"""Bias of a neuron in lengths of its weights, at which it never fires, or always: its weighted
inputs are normalised, and deviate by about that length."""
CHANGED, ALIKE, PAIRED, TWINS = 0.6, 0.95, 4, 0.02
"""Of neurons that moved so far: the cosine of those that are the same or each other's opposite, and
how many of a tensor's may become so, in number and as a share."""
OUTWEIGHS = 10.0
"""Most that an adapter adds to a neuron, in lengths of the layer's largest one."""
LARGE = 1e4
WIDE = 32
"""Features of vectors that are not alike by chance."""
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Frozen:
    """A layer under LoRA: the length of its largest neuron, what multiplies B·A, and a fixed A."""

    largest: float
    scale: float
    a: Tensor | None = None


@dataclass(frozen=True)
class Known:
    """What a client holds a broadcast against.

    values: the last broadcast that it accepted; before the first, those that it made itself.
    own: names of values that came with the model, which training starts from.
    tables: those of them whose rows are tokens or places, and no neurons.
    frozen: layers under LoRA, by their names.
    """

    values: Tree
    own: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    frozen: Mapping[str, Frozen] = field(default_factory=dict)


def check_broadcast(sent: Tree, known: Known) -> None:
    """Refuse values that training does not make of the last ones.

    Raises:
        PolicyError: names the tensor, and says why.
    """
    held = known.values
    if sent.keys() != held.keys():
        odd = sorted(sent.keys() ^ held.keys())
        raise _refusal(odd[0], "is not among the values that train here, or is missing")
    for name, value in sent.items():
        if value.shape != held[name].shape or not finite(value):
            raise _refusal(name, f"has another shape than {list(held[name].shape)}, or no numbers")
        if _largest(value) > max(LARGE, 10 * _largest(held[name])):
            raise _refusal(name, f"holds values as large as {_largest(value):.3g}")
    _check_moves(sent, known)
    for name in sorted(known.own):
        if sent[name].dim() == 2:
            _check_neurons(name, sent[name], held[name], table=name in known.tables)
            _check_shifts(name, sent, held)
    for module, layer in known.frozen.items():
        _check_adapter(module, layer, sent)


def _largest(value: Tensor) -> float:
    return float(value.double().abs().max()) if value.numel() else 0.0


def movement(sent: Tensor, held: Tensor) -> Tensor:
    """How far the rows of a tensor moved, in the size that they had, or usually have at the start.

    One number [rows]; of a vector, one for all of it.
    """
    if held.dim() < 2:
        sent, held = sent.flatten().unsqueeze(0), held.flatten().unsqueeze(0)
    # Half of what a linear layer starts with: less is the size of what was made, not trained.
    least = 0.5 if len(held) == 1 else 0.5 / min(held.shape) ** 0.5
    moved, size = (_rms(one.flatten(1).double()) for one in (sent - held, held))
    return moved / size.clamp(min=least)


def _rms(rows: Tensor) -> Tensor:
    found: Tensor = rows.square().mean(1).sqrt()
    return found


def _check_moves(sent: Tree, known: Known) -> None:
    """Whole tensors that moved as no other did."""
    moves = {n: float(_rms(movement(sent[n], known.values[n])[None])) for n in sorted(known.own)}
    usual = median(moves.values()) if moves else 0.0
    for name, move in moves.items():
        if move > max(MOVED, OUTLIER * usual):
            raise _refusal(
                name,
                f"moved by {move:.2g} of its size since the last broadcast, and half of the "
                f"model's values by {usual:.2g} at most: it was replaced, not trained",
            )


def _check_neurons(name: str, sent: Tensor, held: Tensor, *, table: bool) -> None:
    """Single neurons that were replaced, and such as are each other's opposite."""
    ways = ((sent.T, held.T),) if table else ((sent, held), (sent.T, held.T))
    for now, then in ways:
        rows = movement(now, then)
        worst = int(rows.argmax())
        if float(rows[worst]) > max(MOVED, OUTLIER * float(rows.median())):
            raise _refusal(
                name,
                f"neuron {worst} moved by {float(rows[worst]):.2g} of its size, and half of the "
                f"others by {float(rows.median()):.2g} at most: it was replaced, not trained",
            )
        paired = _twins(now[rows > CHANGED])
        if min(now.shape) >= WIDE and paired >= max(PAIRED, TWINS * len(now)):
            raise _refusal(
                name,
                f"{paired} of its {len(now)} neurons became another one of it or that one's "
                "opposite, which measures a distance and is nothing that training makes",
            )


def _twins(rows: Tensor) -> int:
    """How many rows have another one like them, up to the sign."""
    sizes = rows.norm(dim=1, keepdim=True)
    unit = (rows / sizes.clamp(min=torch.finfo(rows.dtype).tiny))[sizes[:, 0] > 0]
    found = 0
    for start in range(0, len(unit), 1024):
        cosines = (unit[start : start + 1024] @ unit.T).abs()
        cosines.diagonal(start).zero_()
        found += int((cosines.amax(1) > ALIKE).sum())
    return found


def _check_shifts(name: str, sent: Tree, held: Tree) -> None:
    """Neurons that have come to fire never, or always."""
    bias = name.removesuffix("weight") + "bias"
    if bias not in sent or len(sent[bias]) not in sent[name].shape:
        return
    now, then = (_shifts(tree[name], tree[bias]) for tree in (sent, held))
    new = (now > SHIFT) & (then <= SHIFT)
    if bool(new.any()):
        worst = int(torch.where(new, now, 0.0).argmax())
        raise _refusal(
            bias,
            f"neuron {worst} is shifted by {float(now[worst]):.2g} times the length of its weights "
            f"({float(then[worst]):.2g} before), so that it never fires, or always",
        )


def _shifts(weight: Tensor, bias: Tensor) -> Tensor:
    sizes: Tensor = weight.norm(dim=1 if len(bias) == len(weight) else 0)
    return bias.abs() / sizes.clamp(min=torch.finfo(weight.dtype).tiny)


def _check_adapter(module: str, layer: Frozen, sent: Tree) -> None:
    a = sent[f"{module}{LORA_A}"] if layer.a is None else layer.a
    added = layer.scale * (sent[f"{module}{LORA_B}"] @ a)
    most = float(added.norm(dim=1).max())
    if most > OUTWEIGHS * layer.largest:
        raise _refusal(
            f"{module}{LORA_B}",
            f"adds {most:.3g} to a neuron of a layer whose largest has a length of "
            f"{layer.largest:.3g}: the adapter takes the layer's place",
        )


def _refusal(name: str, why: str) -> PolicyError:
    return PolicyError(RULE, f"{name} of the server's broadcast {why}")
