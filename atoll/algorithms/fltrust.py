"""FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping.

Cao, Fang, Liu, Gong; NDSS 2021; https://arxiv.org/abs/2012.13995; section IV, algorithm 2.
The server trains on a few clean rows of its own, the root set, as a client would. An update counts
as far as it points where the root's does, and all are made as long as the root's:

    T_k = max(0, cos(g_k, g_root))        g = Σ T_k·(‖g_root‖ / ‖g_k‖)·g_k / Σ T_k
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from atoll.aggregators.distances import measured, mixed
from atoll.aggregators.gathered import CHANNEL, gathered
from atoll.core import Algorithm, Channel, Context, Failure, Payload, Request, Server, State, Tree
from atoll.data.rows import canonical
from atoll.data.tables import read_table
from atoll.errors import ConfigError, DataError
from atoll.local.bench import Bench
from atoll.local.prefix import with_kin
from atoll.local.train import train
from atoll.local.work import local_training
from atoll.models.objective import Example
from atoll.servers import average
from atoll.stages import uniform
from atoll.tree import l2_norm, map_tree, stack, subtract

__all__ = ["EXAMPLES", "fltrust"]

EXAMPLES: tuple[dict[str, object], ...] = ({"root": "root.jsonl"},)

MARK = "root"
"""The part of the state that tells whether the root set is still the same."""


@dataclass(frozen=True)
class _Root:
    """The server's own rows; digest: SHA-256 of their file."""

    path: Path
    examples: list[Example]
    digest: Tensor


def fltrust(bench: Bench, *, root: str, learning_rate: float = 1.0) -> Algorithm:
    """The server weighs updates by how far they agree with its own, from the rows of `root`.

    root: a file of rows as the clients hold them, at the server alone: a path from where it runs.
    Where no update agrees with the root's, the model stays as it is.
    """
    inner = average(learning_rate=learning_rate)

    @cache
    def opened() -> _Root:
        return _open(bench, Path(root).expanduser())

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        stacked = aggregate[CHANNEL].tree
        updates = [
            {name: value[k] for name, value in stacked.items()} for k in range(_count(stacked))
        ]
        if not updates:
            return state
        state = _marked(state, opened())
        own = _trained(bench, Request(context.at(""), inner.broadcast(state, "")), opened())
        trusted = {CHANNEL: Channel(_trusted(own, updates))}
        return inner.apply(context, state, {**aggregate, **trusted})

    def ready() -> None:
        opened()

    server = Server("fltrust", inner.init, inner.broadcast, apply, ready=ready)
    aggregator = gathered("fltrust", _side_by_side)
    return Algorithm("fltrust", local_training(bench), (uniform(),), aggregator, server)


def _side_by_side(updates: Sequence[Tree], zeros: Tree) -> Tree:
    if not updates:
        return map_tree(lambda value: value.new_zeros((0, *value.shape)), zeros)
    return stack(updates)


def _count(stacked: Tree) -> int:
    return len(next(iter(stacked.values())))


def _trusted(root: Tree, updates: Sequence[Tree]) -> Tree:
    """The mean of updates as long as the root's, weighted by how far they agree with it."""
    places, inner = measured([root, *updates])
    weights = torch.zeros(1 + len(updates), dtype=torch.float64)
    weights[places[1:]] = _weights(inner)
    return mixed([root, *updates], weights[None])[0]


def _weights(inner: Tensor) -> Tensor:
    """Inner products of the root's update and the others, [1 + n, 1 + n] -> factors [n]."""
    lengths = inner.diagonal().sqrt()
    # A client that moved nothing agrees with nothing, and so does a root that did.
    cosine = (inner[0, 1:] / (lengths[0] * lengths[1:])).nan_to_num(0, 0, 0)
    trust = cosine.clamp(0, 1)
    scaled = trust * (lengths[0] / lengths[1:]).nan_to_num(0, 0, 0)
    return scaled / trust.sum() if bool(trust.any()) else trust


def _open(bench: Bench, path: Path) -> _Root:
    """Read and encode the root set.

    Raises:
        ConfigError: when it is not here.   DataError: for rows that are not the federation's.
    """
    if not path.is_file():
        raise ConfigError(
            f"algorithm 'fltrust': there is no file {path} here, from which the server takes clean "
            "rows; give root the path of one"
        )
    rows, _ = canonical(read_table(path), columns={})
    try:
        examples = bench.objective.encode(rows)
    except KeyError as error:
        raise DataError(
            f"{path}: its rows do not fit the federation's ({error}); give them the columns that "
            "the clients' rows have, and labels that some client has"
        ) from error
    digest = torch.tensor(list(hashlib.sha256(path.read_bytes()).digest()), dtype=torch.uint8)
    return _Root(path, with_kin(examples), digest)


def _trained(bench: Bench, request: Request, root: _Root) -> Tree:
    """What a client that holds the root set would send."""
    place = replace(bench, examples=lambda client, split: root.examples, group_size=1)
    (result,) = train(place, [request])
    if isinstance(result, Failure):
        raise DataError(f"training on the clean rows of {root.path} failed: {result.message}")
    update = subtract(result.end, result.start)
    length = l2_norm(update)
    if not math.isfinite(4 * length * length):
        raise DataError(
            f"training on the clean rows of {root.path} led too far to be measured; lower "
            "train.learning_rate or look at them"
        )
    if any(result.factors) and not length:
        raise DataError(
            f"training on the clean rows of {root.path} changes nothing, so no client can be told "
            "by it; do they have labels?"
        )
    return update


def _marked(state: State, root: _Root) -> State:
    """The state with the digest of the root set, which stays the same for a whole run."""
    if MARK in state and not torch.equal(state[MARK]["sha256"], root.digest):
        raise DataError(
            f"{root.path} is not the file that this run began with; put it back, or start a new "
            "run in another output_dir"
        )
    return {**state, MARK: {"sha256": root.digest}}
