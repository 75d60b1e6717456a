"""Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization.

Wang, Liu, Liang, Joshi, Poor; NeurIPS 2020; https://arxiv.org/abs/2007.07481; eq. 6 and 7:
w ← w + τ_eff·Σ p_k·d_k with d_k = (w_k − w)/‖a_k‖₁ and τ_eff = Σ p_k·‖a_k‖₁.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from atoll.aggregators import mean
from atoll.config.sections import Train
from atoll.core import Algorithm, Channel, Context, Payload, Reply, Server, State
from atoll.local.bench import Bench
from atoll.local.train import Trained
from atoll.local.work import local_training, training_payload
from atoll.servers import average
from atoll.stages import by_examples
from atoll.tree import Tree, scale

__all__ = ["EXAMPLES", "fednova", "gradient_mass"]

EXAMPLES: tuple[dict[str, object], ...] = ({}, {"learning_rate": 0.5})


def fednova(bench: Bench, *, learning_rate: float = 1.0) -> Algorithm:
    """FedAvg of changes per local step, so that clients with more steps do not pull harder."""

    def reply(result: Trained) -> Reply:
        mass = gradient_mass(result.factors, bench.settings)
        payload = training_payload(result)
        update = payload["update"]
        # Without mass (the one step of a warm-up's first round) nothing has moved.
        normalized = update.with_tree(scale(update.tree, 1 / mass if mass else 0.0))
        payload |= {"update": normalized, "steps": _steps(mass)}
        return Reply(result.request.context.client, payload)

    def channels(values: Tree) -> Payload:
        return {"steps": _steps(0.0)}

    work = local_training(bench, name="fednova", reply=reply, channels=channels)
    work = replace(work, rescaled=("update",))
    return Algorithm(
        "fednova", work, (by_examples(),), mean(), _server(average(learning_rate=learning_rate))
    )


def gradient_mass(factors: Sequence[float], settings: Train) -> float:
    """‖a‖₁ of local steps with the rates η·f_s (§4 of the paper): Σ_s f_s·(1 + ρ + … + ρ^(s−1)).

    Step s moves by f_s times the momentum, in which the gradient of each step i ≤ s has the weight
    ρ^(s − i). Plain and adaptive steps have ρ = 0.
    """
    rho = settings.momentum if settings.optimizer == "sgd" else 0.0
    mass = weight = 0.0
    for factor in factors:
        weight = 1 + rho * weight
        mass += factor * weight
    return mass


def _steps(mass: float) -> Channel:
    # Its mean multiplies every value: in float64, so that a float64 model loses no digits.
    value = torch.tensor(mass, dtype=torch.float64)
    return Channel({"value": value}, "mean", weight="weight")


def _server(inner: Server) -> Server:
    def apply(context: Context, state: State, aggregate: Payload) -> State:
        update = aggregate["update"]
        effective = scale(update.tree, aggregate["steps"].tree["value"])
        return inner.apply(context, state, aggregate | {"update": update.with_tree(effective)})

    return replace(inner, name="fednova", apply=apply)
