"""A bound on what one client can change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from atoll.core import Context, Payload, Stage, Tree
from atoll.errors import ConfigError, PayloadError
from atoll.tree import l2_norm, scale

__all__ = ["clip"]


def clip(*, norm: float, channels: Sequence[str] = ("update",)) -> Stage:
    """Scale x to x · min(1, norm / ‖x‖₂): one norm over all values of all its channels together.

    Source: McMahan, Ramage, Talwar, Zhang, Learning Differentially Private Recurrent Language
    Models (ICLR 2018, arXiv 1710.06963), section 2, flat clipping.
    """
    if not 0 < norm < math.inf:
        raise ConfigError(f"stage 'clip': norm is {norm}; give a number above 0")
    names = tuple(channels)

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        met = _joint_norm(payload, names)
        if not math.isfinite(met):
            raise PayloadError(
                f"channels {', '.join(names)} hold values that are not finite, which no clipping "
                "can bound"
            )
        clipped = _bounded(payload, names, norm=norm, met=met)
        bounded = {n: replace(channel, l2=bound(channel.l2)) for n, channel in clipped.items()}
        return {**payload, **bounded}, state

    def bound(met: float | None) -> float:
        return norm if met is None else min(met, norm)

    return Stage("clip", names, encode, bound=bound, dense_floats=True, lossy=True)


def _joint_norm(payload: Payload, names: Sequence[str]) -> float:
    return math.hypot(*(l2_norm(payload[name].tree) for name in names))


def _bounded(payload: Payload, names: Sequence[str], *, norm: float, met: float) -> Payload:
    clipped = {name: payload[name] for name in names}
    factor, slack = norm / max(met, norm), _precision(payload, names)
    # Rounding may leave the norm a little above its bound, and noise is calibrated to the bound.
    while _joint_norm(clipped, names) > norm:
        clipped = {n: payload[n].with_tree(scale(payload[n].tree, factor)) for n in names}
        factor, slack = factor * (1 - slack), min(2 * slack, 0.5)
    return clipped


def _precision(payload: Payload, names: Sequence[str]) -> float:
    values = [value for name in names for value in payload[name].tree.values()]
    return max((torch.finfo(value.dtype).eps for value in values), default=0.0)
