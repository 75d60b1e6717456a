"""What stands in the record about a payload, as it is on the wire."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from atoll.egress.lines import TensorFacts

if TYPE_CHECKING:
    from torch import Tensor

    from atoll.core import Payload

__all__ = ["norm", "tensor_facts"]

PIECE = 2**20
"""Values that are squared at once: 400 MB of float32 need no 800 MB of float64 beside them."""


def tensor_facts(payload: Payload) -> list[TensorFacts]:
    """Every tensor of a payload, in its order."""
    return [
        TensorFacts(
            channel=place,
            name=name,
            shape=list(value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
            bytes=value.numel() * value.element_size(),
            l2=norm(value),
        )
        for place, channel in payload.items()
        for name, value in channel.tree.items()
    ]


def norm(value: Tensor) -> float | None:
    """The L2 norm in float64, whatever the dtype; None where it is not finite."""
    flat = value.detach().reshape(-1)
    pieces = (flat[start : start + PIECE] for start in range(0, flat.numel(), PIECE))
    squares = [float(piece.double().square().sum()) for piece in pieces]
    found = math.sqrt(sum(squares))
    return found if math.isfinite(found) else None
