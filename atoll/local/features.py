"""What a head reads of each client's rows, computed once for each representation."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from atoll.core import Request
from atoll.local.bench import Bench, broadcast_values
from atoll.local.infer import features
from atoll.local.statistics import Labelled, head_shapes
from atoll.tree import Tree

__all__ = ["feature_cache"]

CACHE_BYTES = 512 * 2**20


def feature_cache(bench: Bench) -> Labelled:
    """A request to (X [n, d (+1)], y [n]); computed once for each client and representation.

    The features that were used least recently leave when all take more than `CACHE_BYTES`.
    """
    held: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
    bias, size = head_shapes(bench).bias, 0

    def labelled(request: Request) -> tuple[Tensor, Tensor]:
        nonlocal size
        client = request.context.client
        examples = bench.examples(client, "train")
        key = (client, _digest(request.payload["adapter"].tree))
        if key not in held:
            held[key] = features(bench, broadcast_values(request.payload), examples)
            size += held[key].nbytes
        held.move_to_end(key)
        found = held[key]
        while held and size > CACHE_BYTES:
            size -= held.popitem(last=False)[1].nbytes
        if bias:
            found = torch.cat([found, torch.ones(len(found), 1)], dim=1)
        labels = np.asarray([example.target[0] for example in examples])
        return found, torch.from_numpy(labels)

    return labelled


def _digest(tree: Tree) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in tree.items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
