"""AdaLoRA's ranks, cut at the server (Zhang et al. 2023, arXiv 2303.10512, algorithm 1).

Clients that cut ranks on their own rows would each cut others, and their mean would have all of
them again. So what the paper does after a step is done after a round, by PEFT's own allocator: the
round's update stands for the gradient in the importance of a value, |w·Δ| (eq. 8 to 10), and the
budget falls over the rounds (appendix A).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from atoll.core import Context, Payload, Server, State
from atoll.servers.values import ADAPTER
from atoll.tree import Tree

__all__ = ["within_budget"]

IMPORTANCE, UNCERTAINTY, KEPT = "importance", "uncertainty", "kept"
ENDS = ("lora_A", "lora_E", "lora_B")
DEFAULT = ".default"
"""What stands after a parameter's name in a model of PEFT's."""


def within_budget(inner: Server, config: Any) -> Server:
    """The server `inner`, and after it no more ranks than the round's budget.

    config: PEFT's AdaLoraConfig, whose steps (tinit, tfinal, deltaT, total_step) are rounds.
    """
    final = config.total_step - config.tfinal

    def init(state: State) -> State:
        state = inner.init(state)
        nothing = {name: torch.zeros_like(value) for name, value in _values(state).items()}
        ranks = {name: torch.ones_like(v) for name, v in nothing.items() if name.endswith("lora_E")}
        return {IMPORTANCE: nothing, UNCERTAINTY: nothing, KEPT: ranks, **state}

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        before, state = _values(state), inner.apply(context, state, aggregate)
        model, allocator = _allocator(config, before, state)
        if context.round < final:
            allocator.update_ipt(model)
        if context.round > final:
            allocator.mask_using_rank_pattern(model, _pattern(state[KEPT]))
        else:
            budget, due = allocator.budget_schedule(context.round)
            # Where the budget is all of them, none is the least important.
            if budget < allocator.init_bgt and (due or context.round == final):
                found = allocator.mask_to_budget(model, budget)
                state = {**state, KEPT: {
                    name: torch.tensor(found[name + DEFAULT]).view_as(mask).to(mask)
                    for name, mask in state[KEPT].items()
                }}  # fmt: skip
        values = {name: value.detach() for name, value in _plain(model.values).items()}
        return {
            **state,
            ADAPTER: {**state[ADAPTER], **values},
            IMPORTANCE: _plain(allocator.exp_avg_ipt),
            UNCERTAINTY: _plain(allocator.exp_avg_unc),
        }

    return Server(inner.name, init, inner.broadcast, apply)


def _allocator(config: Any, before: Tree, state: State) -> tuple[SimpleNamespace, Any]:
    """What PEFT's allocator takes for a model, and the allocator as the last round left it."""
    # Heavy, and needed by this server alone.
    from peft.tuners.adalora.layer import RankAllocator

    values: dict[str, nn.Parameter] = {}
    for name, value in _values(state).items():
        values[name + DEFAULT] = parameter = nn.Parameter(value.clone())
        parameter.grad = before[name] - value
    model = SimpleNamespace(values=values, named_parameters=values.items)
    allocator = RankAllocator(model, config, DEFAULT.removeprefix("."))
    allocator.ipt = {name: torch.zeros_like(value) for name, value in values.items()}
    for held, part in ((allocator.exp_avg_ipt, IMPORTANCE), (allocator.exp_avg_unc, UNCERTAINTY)):
        held.update({name + DEFAULT: value.clone() for name, value in state[part].items()})
    return model, allocator


def _values(state: State) -> Tree:
    return {name: value for name, value in state[ADAPTER].items() if name.endswith(ENDS)}


def _plain(named: Any) -> Tree:
    return {name.removesuffix(DEFAULT): value for name, value in named.items()}


def _pattern(masks: Tree) -> dict[str, list[bool]]:
    return {name + DEFAULT: mask.bool().view(-1).tolist() for name, mask in masks.items()}
