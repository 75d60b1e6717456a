"""What a client accepts as a model: a broadcast, held against the last one that it accepted.

A dishonest server can plant weights with which one text betrays itself in an update (Vu et al.,
AISTATS 2024, arXiv 2403.04784). Frozen weights are compared by fingerprint before anything trains;
this looks at those that do train. Training moves all of a model by about as much; a trap replaces a
few tensors or neurons, doubles neurons with their signs turned, shifts some so far that they never
fire or always do, or lets an adapter outweigh the layer that it adapts. Each broadcast is held
against the last one and against what the client made itself, so that a trap does not pass in small
steps. What is hidden in a change of the whole model is not found: only frozen weights, secure
aggregation and noise bound what a server can learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from atoll.errors import PolicyError
from atoll.policy.neurons import movement, rms, shifts, twins
from atoll.tree import Tree, finite

__all__ = ["RULE", "Frozen", "Known", "check_broadcast"]

RULE = "guard"

MOVED = 0.75
"""Most that a tensor, or a neuron, moves between two broadcasts, in its size, however many rounds
a server says lie between…"""
OUTLIER = 8.0
"""… where it also moves by so many times what others do."""
SHIFT = 10.0
"""Bias of a neuron in lengths of its weights, at which it never fires, or always: its weighted
inputs are normalised, and deviate by about that length."""
CHANGED, PAIRED, TWINS = 0.6, 4, 0.02
"""Of neurons that moved so far: how many of a tensor's may become the same or each other's
opposite, in number and as a share."""
SETTLED = 0.3
"""Since the start, neurons of a layer are looked at for such pairs where half of them moved less:
those of a model that is made anew may have become alike."""
OUTWEIGHS, LEAST = 10.0, 0.5
"""Most that an adapter adds to a neuron, in lengths of the layer's largest one, or of what a linear
layer starts with; what noise adds is beside it."""
SPREAD = 4.0
"""Deviations of noise that the largest of a layer's neurons may have beside what all have."""
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

    values: the last broadcast that it accepted.   start: what it made itself, before the first.
    own: names of values that came with the model, which training starts from.
    tables: those of them whose rows are tokens or places, and no neurons.
    frozen: layers under LoRA, by their names.
    noise: the deviation of what all rounds of a private run put into one value.
    """

    values: Tree
    start: Tree
    own: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    frozen: Mapping[str, Frozen] = field(default_factory=dict)
    noise: float = 0.0


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
            _check_neurons(name, sent, known)
            _check_shifts(name, sent, held)
            _check_shifts(name, sent, known.start)
    for module, layer in known.frozen.items():
        _check_adapter(module, layer, sent, known)


def _largest(value: Tensor) -> float:
    return float(value.double().abs().max()) if value.numel() else 0.0


def _check_moves(sent: Tree, known: Known) -> None:
    """Whole tensors that moved as no other did."""
    moves = {n: float(rms(movement(sent[n], known.values[n])[None])) for n in sorted(known.own)}
    usual = median(moves.values()) if moves else 0.0
    for name, move in moves.items():
        if move > max(MOVED, OUTLIER * usual):
            raise _refusal(
                name,
                f"moved by {move:.2g} of its size since the last broadcast, and half of the "
                f"model's values by {usual:.2g} at most: it was replaced, not trained",
            )


def _check_neurons(name: str, sent: Tree, known: Known) -> None:
    """Single neurons that were replaced, and such as are each other's opposite."""
    now = sent[name]
    first = "the start"
    for since, held in (("the last broadcast", known.values), (first, known.start)):
        then = held[name]
        pairs = ((now.T, then.T),) if name in known.tables else ((now, then), (now.T, then.T))
        for one, other in pairs:
            rows = movement(one, other)
            usual, worst = float(rows.median()), int(rows.argmax())
            if float(rows[worst]) > max(MOVED, OUTLIER * usual):
                raise _refusal(
                    name,
                    f"neuron {worst} moved by {float(rows[worst]):.2g} of its size since {since}, "
                    f"and half of the others by {usual:.2g} at most: it was replaced, not trained",
                )
            if min(now.shape) < WIDE or (since == first and usual > SETTLED):
                continue
            paired = twins(one[rows > CHANGED])
            if paired >= max(PAIRED, TWINS * len(one)):
                raise _refusal(
                    name,
                    f"{paired} of its {len(one)} neurons became another one of it or that one's "
                    f"opposite since {since}, which measures a distance and is nothing that "
                    "training makes",
                )


def _check_shifts(name: str, sent: Tree, held: Tree) -> None:
    """Neurons that have come to fire never, or always."""
    bias = name.removesuffix("weight") + "bias"
    if bias not in sent or len(sent[bias]) not in sent[name].shape:
        return
    now, then = (shifts(tree[name], tree[bias]) for tree in (sent, held))
    new = (now > SHIFT) & (then <= SHIFT)
    if bool(new.any()):
        worst = int(torch.where(new, now, 0.0).argmax())
        raise _refusal(
            bias,
            f"neuron {worst} is shifted by {float(now[worst]):.2g} times the length of its weights "
            f"({float(then[worst]):.2g} before), so that it never fires, or always",
        )


def _check_adapter(module: str, layer: Frozen, sent: Tree, known: Known) -> None:
    a = sent[f"{module}{LORA_A}"] if layer.a is None else layer.a
    b = sent[f"{module}{LORA_B}"]
    most = float((layer.scale * (b @ a)).norm(dim=1).max())
    allowed = OUTWEIGHS * max(layer.largest, LEAST) + _noise_in(module, layer, known)
    if most > allowed:
        private = ", also beside the noise of this run" if known.noise else ""
        raise _refusal(
            f"{module}{LORA_B}",
            f"adds {most:.3g} to a neuron of a layer whose largest has a length of "
            f"{layer.largest:.3g}{private}: the adapter takes the layer's place",
        )


def _noise_in(module: str, layer: Frozen, known: Known) -> float:
    """What noise in A and B adds to a neuron, at most: its share of B times the largest of A."""
    start = known.start.get(f"{module}{LORA_A}", layer.a)
    assert start is not None, "an adapter has an A"
    rank, width = start.shape
    in_b = known.noise * (rank**0.5 + SPREAD)
    in_a = float(torch.linalg.matrix_norm(start.float(), 2))
    if layer.a is None:
        in_a += known.noise * (rank**0.5 + width**0.5 + SPREAD)
    return float(layer.scale * in_b * in_a)


def _refusal(name: str, why: str) -> PolicyError:
    return PolicyError(RULE, f"{name} of the server's broadcast {why}")
