"""SCAFFOLD: Stochastic Controlled Averaging for Federated Learning.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh; ICML 2020; https://arxiv.org/abs/1910.06378;
algorithm 1. A client's control variate becomes the mean gradient of its local steps: option II of
eq. 4 under plain SGD, and defined for every optimiser. The optimum is a fixed point as long as c is
the mean of the c_k, so that a change of c_k must arrive as it was sent.
"""

from __future__ import annotations

from dataclasses import replace

from atoll.aggregators import mean
from atoll.core import Algorithm, Channel, Context, Payload, Reply, Request, Server, State
from atoll.local.bench import Bench, trained_values
from atoll.local.train import LocalRule, Trained
from atoll.local.work import local_training, training_payload
from atoll.servers import average
from atoll.stages import uniform
from atoll.tree import Tree, add, scale, subtract, zeros_like

__all__ = ["EXAMPLES", "scaffold"]

EXAMPLES: tuple[dict[str, object], ...] = ({}, {"learning_rate": 0.5})


def scaffold(bench: Bench, *, learning_rate: float = 1.0) -> Algorithm:
    """Each local gradient is moved by c − c_k; `learning_rate` is the server's."""

    def controls(request: Request) -> tuple[Tree, Tree]:
        values = trained_values(bench, request.payload)
        own = request.state.get("scaffold", zeros_like(values))
        return request.payload["control"].tree, own

    def offset(request: Request) -> Tree:
        server, own = controls(request)
        return subtract(server, own)

    def reply(result: Trained) -> Reply:
        _, own = controls(result.request)
        change = subtract(result.mean_gradient, own)
        payload = training_payload(result) | {"control": Channel(change, "sum")}
        return Reply(result.request.context.client, payload, {"scaffold": add(own, change)})

    def channels(values: Tree) -> Payload:
        return {"control": Channel(values, "sum")}

    rule = LocalRule(offset=offset, mean_gradient=True)
    work = local_training(bench, name="scaffold", rule=rule, reply=reply, channels=channels)
    work = replace(work, kept=("control",))
    server = _server(bench, average(learning_rate=learning_rate))
    return Algorithm("scaffold", work, (uniform(),), mean(), server)


def _server(bench: Bench, inner: Server) -> Server:
    """Keeps the control variate c: c ← c + (1/N)·Σ (c_k⁺ − c_k)."""

    def init(state: State) -> State:
        state = inner.init(state)
        return {**state, "control": zeros_like(trained_values(bench, inner.broadcast(state, "")))}

    def broadcast(state: State, client: str) -> Payload:
        return {**inner.broadcast(state, client), "control": Channel(state["control"])}

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        moved = scale(aggregate["control"].tree, 1 / max(context.population, 1))
        control = add(state["control"], moved)
        return {**inner.apply(context, state, aggregate), "control": control}

    return replace(inner, name="scaffold", init=init, broadcast=broadcast, apply=apply)
