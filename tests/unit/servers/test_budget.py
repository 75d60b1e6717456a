"""AdaLoRA at the server against PEFT's own model: the same ranks, and the same loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from atoll.adapters.adalora import orthogonality
from atoll.core import Channel, Context, Payload, State
from atoll.servers import average, momentum
from atoll.servers.budget import KEPT, within_budget
from tests.support.federation import site
from tests.support.models import Zoo

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ROUNDS = 8
SETTINGS: dict[str, Any] = {"init_r": 5, "target_r": 2, "tinit": 1, "tfinal": 3, "deltaT": 2,
                            "total_step": ROUNDS, "beta1": 0.6, "beta2": 0.7}  # fmt: skip


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def _theirs() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return get_peft_model(_Two(), AdaLoraConfig(**SETTINGS, target_modules=["one", "two"]))


def _plain(model: Any) -> dict[str, nn.Parameter]:
    return {
        name.removeprefix("base_model.model.").removesuffix(".default"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _round(number: int) -> Context:
    return Context(0, "run", number, number, ("ada",), 1)


def test_ranks_are_cut_as_pefts_model_cuts_them() -> None:
    """Its step is the round's update, and its gradient what that update went against."""
    model = _theirs()
    theirs = _plain(model)
    server = within_budget(average(), model.peft_config["default"])
    state = server.init({"adapter": {name: value.detach().clone() for name, value in
                                     theirs.items()}})  # fmt: skip
    draw, left = torch.Generator().manual_seed(1), []
    for number in range(1, ROUNDS + 1):
        update = {n: 0.3 * torch.randn(v.shape, generator=draw) for n, v in theirs.items()}
        # It is used up.
        sent = {"update": Channel({name: value.clone() for name, value in update.items()})}
        state = server.apply(_round(number), state, sent)
        for name, parameter in theirs.items():
            parameter.grad = -update[name]
            parameter.data += update[name]
        model.base_model.update_and_allocate(number)
        for name, parameter in theirs.items():
            torch.testing.assert_close(state["adapter"][name], parameter.data)
        left.append(sum(int((v != 0).sum()) for n, v in theirs.items() if n.endswith("lora_E")))
    # Ten ranks, then fewer by the schedule, then the four that the last cut left.
    assert left[0] == 10
    assert left[-4:] == [4] * 4
    assert int(sum(mask.sum() for mask in state[KEPT].values())) == 4


def test_it_comes_after_any_server_and_keeps_other_parts() -> None:
    model = _theirs()
    inner = momentum(learning_rate=0.5)
    server = within_budget(inner, model.peft_config["default"])
    start: State = {
        "adapter": {n: v.detach().clone() for n, v in _plain(model).items()}
        | {"norm.weight": torch.ones(3)},
        "head": {"classifier.weight": torch.ones(2, 2)},
    }

    def sent() -> Payload:
        trees = start.values()
        return {
            "update": Channel({n: torch.full_like(v, 0.1) for t in trees for n, v in t.items()})
        }

    context = _round(1)
    found = server.apply(context, server.init(start), sent())
    alone = inner.apply(context, inner.init(start), sent())
    # In the rounds of tinit nothing is cut.
    for part in ("adapter", "head", "moments"):
        torch.testing.assert_close(found[part], alone[part], rtol=0, atol=0)
    assert server.broadcast(found, "ada").keys() == {"adapter", "head"}


def test_a_budget_of_all_ranks_cuts_none() -> None:
    config = AdaLoraConfig(init_r=5, target_r=5, total_step=2)
    model = _theirs()
    server = within_budget(average(), config)
    state = server.init({"adapter": {n: v.detach().clone() for n, v in _plain(model).items()}})
    update = {name: torch.ones_like(value) for name, value in state["adapter"].items()}
    for number in (1, 2):
        state = server.apply(_round(number), state, {"update": Channel(update)})
    assert all(bool((v != 0).all()) for n, v in state["adapter"].items() if n.endswith("lora_E"))


def test_training_adds_pefts_orthogonality_to_the_loss(zoo: Zoo) -> None:
    adapter = {"method": "adalora", "config": {"init_r": 3, "target_r": 2, "orth_reg_weight": 0.4}}
    train = {"optimizer": "sgd", "learning_rate": 0.1, "max_steps": 1, "max_grad_norm": None,
             "gradient_accumulation_steps": 2}  # fmt: skip
    there = site(zoo, "llama", dtype="float32", adapter=adapter, train=train)
    done, _ = there.train(group_size=1, clients=("bob",))
    model = AutoModelForCausalLM.from_pretrained(zoo("llama"), dtype=torch.float32)
    config = AdaLoraConfig(
        init_r=3, target_r=2, orth_reg_weight=0.4, total_step=9, task_type="CAUSAL_LM"
    )
    peft = get_peft_model(model, config)
    theirs = _plain(peft)
    for name, parameter in theirs.items():
        parameter.data = there.values[name].clone()
    batch = there.bench.objective.collate(list(there.bench.examples("bob", "train")))
    labels = batch.target.masked_fill(batch.target < 0, -100)
    # Over all predicted tokens, as transformers' own loss.
    peft(**batch.inputs, labels=labels).loss.backward()
    for name, parameter in theirs.items():
        moved = done["bob"].end[name] - done["bob"].start[name]
        torch.testing.assert_close(moved, -0.1 * parameter.grad, rtol=1e-4, atol=1e-6)
    weighed = orthogonality(0.4)({n: p.detach() for n, p in theirs.items()})
    assert float(weighed) > 0.1
