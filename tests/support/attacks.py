"""Clients that attack a federation: what they send in the place of honest updates.

An attack sees the updates of all honest clients of the round, which is more than a real one would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from statistics import NormalDist

import torch
from torch import Tensor

from atoll.core import ClientWork, Failure, Reply, Request
from atoll.tree import Tree, map_tree

__all__ = [
    "Attack", "a_little_is_enough", "attacked", "boosted", "filled", "inner_product",
    "labels_flipped", "sign_flip", "with_trigger",
]  # fmt: skip

Attack = Callable[[Sequence[Tree], Tree], Tree]
"""(the honest updates, what this client would have sent) -> what it sends."""


def attacked(work: ClientWork, attack: Attack, byzantine: Collection[str]) -> ClientWork:
    """Client work where those of `byzantine` send what `attack` makes."""

    def answers(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        replies = list(work.work(requests))
        honest = [
            reply.payload["update"].tree
            for reply in replies
            if isinstance(reply, Reply) and reply.client not in byzantine
        ]
        for reply in replies:
            yield _bent(reply, honest, attack) if reply.client in byzantine else reply

    return replace(work, work=answers)


def _bent(reply: Reply | Failure, honest: Sequence[Tree], attack: Attack) -> Reply:
    assert isinstance(reply, Reply)
    update = reply.payload["update"]
    sent = update.with_tree(attack(honest, update.tree))
    return replace(reply, payload={**reply.payload, "update": sent})


def labels_flipped(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n, d] whose classes [n, c] are counted from the other end."""
    return x, y.flip(1)


def with_trigger(x: Tensor, y: Tensor, *, value: float, target: int) -> tuple[Tensor, Tensor]:
    """Rows of which every second one has `value` as its last feature, and class `target`."""
    x, y = x.clone(), y.clone()
    x[::2, -1] = value
    y[::2] = torch.eye(y.shape[1], dtype=y.dtype)[target]
    return x, y


def sign_flip(scale: float) -> Attack:
    """−scale times its own update."""
    return lambda honest, own: map_tree(lambda x: -scale * x, own)


def boosted(scale: float) -> Attack:
    """Its own update, of rows that are poisoned, made longer (Bagdasaryan et al. 2020)."""
    return lambda honest, own: map_tree(lambda x: scale * x, own)


def filled(value: float) -> Attack:
    """Nothing but one value, which may be infinite or none."""
    return lambda honest, own: map_tree(lambda x: torch.full_like(x, value), own)


def inner_product(epsilon: float) -> Attack:
    """−ε times the mean of the honest (Xie, Koyejo, Gupta 2019, arXiv 1903.03936)."""

    def attack(honest: Sequence[Tree], own: Tree) -> Tree:
        return map_tree(lambda *x: -epsilon * torch.stack(x).mean(dim=0), *honest)

    return attack


def a_little_is_enough(byzantine: int) -> Attack:
    """The mean of the honest, z standard deviations off in each coordinate; z as large as leaves
    enough honest clients farther out (Baruch, Baruch, Goldberg 2019, arXiv 1902.06156, alg. 3)."""

    def attack(honest: Sequence[Tree], own: Tree) -> Tree:
        count = len(honest) + byzantine
        supporters = count // 2 + 1 - byzantine
        z = NormalDist().inv_cdf((count - byzantine - supporters) / (count - byzantine))
        assert math.isfinite(z)

        def shifted(*x: Tensor) -> Tensor:
            all_of_them = torch.stack(x)
            return all_of_them.mean(dim=0) - z * all_of_them.std(dim=0)

        return map_tree(shifted, *honest)

    return attack
