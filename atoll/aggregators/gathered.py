"""Rules that need every update at once: they are gathered, then combined.

An update is all tensors of channel `update` as one vector. Weights are ignored, since a client
says itself what it weighs; every other channel is treated as a mean treats it. The state holds
every reply, so memory grows with the cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from atoll.aggregators.averaging import mean
from atoll.core import Aggregator, Channel, Payload, State, Tree
from atoll.errors import ConfigError, QuorumError
from atoll.tree import all_finite, map_tree

__all__ = ["CHANNEL", "Rule", "gathered", "robust", "whole"]

CHANNEL = "update"
# Parts of the state: the zeros of an empty cohort, and one part per reply behind this prefix.
ZEROS = "update"
REPLY = "update:"

Rule = Callable[[Sequence[Tree]], Tree]
"""At least one update, of the same names and shapes, in float32 or wider -> one of these shapes."""


def robust(name: str, rule: Rule, *, least: int = 1) -> Aggregator:
    """The aggregator of a rule that combines one update or more; none gives zeros."""

    def combine(updates: Sequence[Tree], zeros: Tree) -> Tree:
        return rule(updates) if updates else map_tree(torch.clone, zeros)

    return gathered(name, combine, least=least)


def gathered(
    name: str, combine: Callable[[Sequence[Tree], Tree], Tree], *, least: int = 1
) -> Aggregator:
    """An aggregator that hands all updates to `combine`: (updates, zeros) -> what is aggregated.

    An update with a value that is not finite is left out, as if its client had not answered.

    Raises:
        QuorumError: when it finishes with fewer than `least` updates, and not without any.
    """
    others = mean()

    def init(like: Payload) -> State:
        zeros = {
            key: torch.zeros(value.shape, dtype=torch.promote_types(value.dtype, torch.float32))
            for key, value in like[CHANNEL].tree.items()
        }
        return {**others.init(_without(like)), ZEROS: zeros}

    def add(state: State, payload: Payload) -> State:
        replies, rest = _split(state)
        new = {f"{REPLY}{len(replies)}": payload[CHANNEL].tree}
        return {**others.add(rest, _without(payload)), ZEROS: state[ZEROS], **replies, **new}

    def finish(state: State) -> Payload:
        replies, rest = _split(state)
        zeros = state[ZEROS]
        updates = [
            {key: tree[key].to(like.dtype) for key, like in zeros.items()}
            for tree in replies.values()
            if all_finite(tree)
        ]
        if 0 < len(updates) < least:
            raise QuorumError(
                f"aggregator '{name}' needs {least} updates, and {len(updates)} came; raise "
                f"federation.min_clients to {least}, so that a round waits for them, or let the "
                "aggregator expect fewer"
            )
        return {CHANNEL: Channel(combine(updates, zeros)), **others.finish(rest)}

    return Aggregator(name, init, add, finish, linear=False, weighted=False, least=least)


def whole(value: int, *, name: str, aggregator: str, least: int = 0) -> None:
    """Refuse a setting below `least`.

    Raises:
        ConfigError: names the aggregator and the value.
    """
    if value < least:
        raise ConfigError(
            f"aggregator '{aggregator}': {name} is {value}; give a whole number of {least} or more"
        )


def _split(state: State) -> tuple[State, State]:
    """The replies, and what the mean of the other channels keeps."""
    replies = {part: tree for part, tree in state.items() if part.startswith(REPLY)}
    return replies, {p: t for p, t in state.items() if p != ZEROS and p not in replies}


def _without(payload: Payload) -> Payload:
    return {name: channel for name, channel in payload.items() if name != CHANNEL}
