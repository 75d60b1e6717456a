"""The models that a client was sent: each is held against the one that it accepted before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from atoll.adapters.lora import A, LoraScale
from atoll.adapters.site import fan
from atoll.core import Task
from atoll.experiment.setup import Setup
from atoll.policy.guard import Frozen, Known, check_broadcast

__all__ = ["Broadcasts", "known_of"]

TRAIN, ADAPTER = "train", "adapter"


class Broadcasts:
    """What a client takes for a model, from the one on that it made itself."""

    def __init__(self, setup: Setup, client: str) -> None:
        self._client, self._known, self._round = client, known_of(setup), 0

    def take(self, tasks: Sequence[Task]) -> None:
        """Look at what is to be trained.

        Raises:
            PolicyError: for a model that training does not make of the last one.
        """
        for task in tasks:
            payload = task.broadcast(self._client) if task.algorithm == TRAIN else {}
            if ADAPTER not in payload:
                continue
            values, number = payload[ADAPTER].tree, task.context.round
            check_broadcast(values, self._known, rounds=max(number - self._round, 1))
            self._known, self._round = replace(self._known, values=values), number


def known_of(setup: Setup) -> Known:
    """What a client knows of the values that train before it was sent any."""
    values, model = setup.start.server[ADAPTER], setup.base.model
    modules, frozen = dict(model.named_modules()), dict[str, Frozen]()
    settings = setup.experiment.adapter
    for name, value in values.items():
        module = modules.get(name.removesuffix(f".{A}"))
        if not name.endswith(f".{A}") or module is None or fan(module) is None:
            continue
        weight = model.get_parameter(f"{name.removesuffix(f'.{A}')}.weight").detach()
        scale = LoraScale(settings.lora_alpha, settings.use_rslora).at(len(value))
        turned = weight.shape[1] != value.shape[1]
        frozen[name.removesuffix(f".{A}")] = Frozen(weight.T if turned else weight, scale)
    own = frozenset(values) & {name for name, _ in model.named_parameters()}
    return Known(values, own, frozen)
