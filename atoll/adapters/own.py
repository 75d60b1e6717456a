"""What of a model itself trains, one client at a time: its own parameters, or PEFT's among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from atoll.tree import Tree

__all__ = ["Own"]


@dataclass(frozen=True)
class Own:
    """Parameters of a model itself that train, one client at a time.

    names: of the values -> of the parameters.
    init: seed -> the first values.
    readers: the modules that compute with them, each at its turn in a forward pass.
    casts: whether the rest of the model takes the precision of the values.
    noisy: modules that draw dropout while they train.
    penalty: values -> what is added to the loss of each step; None: nothing.
    """

    names: Mapping[str, str]
    init: Callable[[int], Tree]
    readers: frozenset[str]
    casts: bool = False
    noisy: tuple[nn.Module, ...] = ()
    penalty: Callable[[Tree], Tensor] | None = None
