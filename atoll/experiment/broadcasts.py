"""The models that a client was sent: each is held against the one that it accepted before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from atoll.adapters.lora import A, LoraScale
from atoll.adapters.site import fan
from atoll.core import Channel, Payload, Task
from atoll.errors import PolicyError
from atoll.experiment.setup import Setup
from atoll.local.bench import trained_values
from atoll.policy.guard import RULE, Frozen, Known, check_broadcast
from atoll.protection import Protection
from atoll.servers.quantile import CLIP, CLIPS, NORM
from atoll.servers.values import ADAPTER, HEAD
from atoll.tree import Tree

__all__ = ["Broadcasts", "known_of"]


class Broadcasts:
    """What a client takes for a model, from the one on that it made itself."""

    def __init__(self, setup: Setup, client: str) -> None:
        self._setup, self._client, self._known = setup, client, known_of(setup)
        self._bound = 0.0

    def take(self, tasks: Sequence[Task]) -> None:
        """Look at the model of each task, whatever is to be done with it: statistics and scores
        tell of rows too.

        Raises:
            PolicyError: for a model that training does not make of the last one.
        """
        for task in tasks:
            payload = task.broadcast(self._client)
            if ADAPTER not in payload:
                continue
            values = trained_values(self._setup.bench, payload)
            self._follow(payload, task.context.round)
            check_broadcast(values, self._known)
            self._known = replace(self._known, values=values)

    def _follow(self, payload: Payload, number: int) -> None:
        """Of a bound that follows updates, noise has the size of the largest that was told, as far
        as it could have come by this round."""
        protection = self._setup.protection
        if CLIP not in payload or not isinstance(protection, Protection):
            return
        told = payload[CLIP].tree.get(NORM)
        if told is None or told.numel() != 1:
            raise PolicyError(RULE, "the bound that the server sends is no number")
        bound = min(float(told), protection.reach(number))
        if bound > self._bound:
            self._bound = bound
            noise = _noise(self._setup, self._known.values, bound)
            self._known = replace(self._known, noise=noise)


def known_of(setup: Setup) -> Known:
    """What a client knows of the values that train before it was sent any."""
    start, model = setup.start.server, setup.base.model
    values = trained_values(setup.bench, {part: Channel(start[part]) for part in (ADAPTER, HEAD)
                                          if part in start})  # fmt: skip
    modules = dict(model.named_modules())
    fixed = {name: value for site in setup.bench.model.sites for name, value in site.fixed.items()}
    named = values | fixed
    names = (name.removesuffix(f".{A}") for name in named if name.endswith(f".{A}"))
    frozen = {
        name: replace(
            _frozen(setup, modules[name], named[f"{name}.{A}"]), a=fixed.get(f"{name}.{A}")
        )
        for name in names
        if name in modules and fan(modules[name]) is not None
    }
    # A head begins at nothing, and its rows are classes of which a round may have few.
    own = frozenset(start.get(ADAPTER, {})) & {name for name, _ in model.named_parameters()}
    tables = {f"{name}.weight" for name, one in modules.items() if isinstance(one, nn.Embedding)}
    noise = _noise(setup, values, 0.0)
    return Known(values, values, own, own & tables, frozen, noise)


def _noise(setup: Setup, values: Tree, bound: float) -> float:
    """The deviation of what all rounds' noise puts into one value, where its size is agreed.

    bound: of an adaptive clip in all of them.
    """
    algorithm = setup.program.algorithms.get("train")
    response = None if algorithm is None else algorithm.server.response
    if setup.protection is None or response is None:
        return 0.0
    rounds = setup.experiment.federation.num_rounds
    count = sum(value.numel() for value in values.values())
    past = {CLIPS: {NORM: torch.full((rounds,), bound, dtype=torch.float64)}}
    found = setup.protection.noise_in(values, setup.start.server | past, response(rounds))
    return found / math.sqrt(count)


def _frozen(setup: Setup, module: nn.Module, a: Tensor) -> Frozen:
    settings = setup.experiment.adapter
    scale = LoraScale(settings.lora_alpha, settings.use_rslora).at(len(a))
    return Frozen(float(_weight(module, a.shape[1]).norm(dim=1).max()), scale)


def _weight(module: nn.Module, width: int) -> Tensor:
    """[d_out, d_in], as the layer computes with it."""
    weight = module.get_parameter("weight")
    if type(weight) is nn.Parameter and weight.is_floating_point():
        return (weight.T if isinstance(module, Conv1D) else weight).detach().float()
    with torch.no_grad():
        # Whole numbers and scales: what it makes of unit vectors.
        ones = torch.eye(width, device=weight.device)
        found: Tensor = (module(ones) - module(torch.zeros_like(ones))).T.float()
    return found
