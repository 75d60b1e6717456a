"""K uneven clients in one forward pass give what each gives alone, and cannot touch each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from atoll.local.job import Job, LocalRule
from atoll.local.stack import Stack
from atoll.models.classification import class_terms
from atoll.tree import Tree, unflatten, zeros_like
from tests.support.federation import Site, distance, labelled_rows, moved, site, stir
from tests.support.models import Zoo

LORA = {"r": 4, "lora_dropout": 0.1}
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-all-linear": ("bert", LORA),
    "bert-names": ("bert", {**LORA, "target_modules": ("query", "value"), "use_rslora": True}),
    "gpt2-all-linear": ("gpt2", {**LORA, "use_rslora": True}),
    "llama-names": ("llama", {**LORA, "target_modules": ("q_proj", "v_proj")}),
    "llama-regex": ("llama", {**LORA, "target_modules": r".*\.mlp\.(up|down)_proj"}),
    "bert-head": ("bert", {"method": "none"}),
    "bert-bitfit": ("bert", {"method": "bitfit"}),
    "gpt2-bitfit": ("gpt2", {"method": "bitfit"}),
}
HARD: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "max_grad_norm": 0.5,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 2,
}
SGD = {**HARD, "optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.05}
ADAMW = {**HARD, "optimizer": "adamw", "learning_rate": 1e-3}
# The gradient of a key's bias is zero in theory (softmax does not see it): Adam would divide
# rounding noise by rounding noise, so epsilon stands above the noise where GPT-2 keeps the biases
# of queries, keys and values together, and BERT's are not compared.
ADAMW_NOISE = {**ADAMW, "adam_epsilon": 1e-4}


def _seen(tree: Tree) -> Tree:
    return {name: value for name, value in tree.items() if not name.endswith("key.bias")}


def _compare(there: Site, tolerance: float, **asked: Any) -> None:
    stacked, failed = there.train(group_size=len(there.clients), **asked)
    alone, failed_alone = there.train(group_size=1, **asked)
    assert not failed
    assert not failed_alone
    assert stacked.keys() == alone.keys() == set(there.clients)
    for client, one in alone.items():
        assert stacked[client].steps == one.steps
        assert stacked[client].examples == one.examples
        assert stacked[client].loss == pytest.approx(one.loss, rel=tolerance)
        assert distance(_seen(moved(stacked[client])), _seen(moved(one))) < tolerance, client
        gradient = _seen(one.mean_gradient)
        assert distance(_seen(stacked[client].mean_gradient), gradient) < tolerance, client
        # It trained: two arms that do nothing would be equal as well. (The first step of a warm-up
        # has a learning rate of zero.)
        assert (min(float(value.abs().max()) for value in moved(one).values()) > 0) or (
            one.steps == 1 and there.bench.settings.warmup_steps
        )
    assert len({one.steps for one in alone.values()}) > 2, "the clients are not uneven"


@pytest.mark.parametrize("name", ADAPTERS)
def test_adamw_in_double_precision(zoo: Zoo, name: str) -> None:
    kind, adapter = ADAPTERS[name]
    there = site(zoo, kind, adapter=adapter, train=ADAMW_NOISE if "bitfit" in name else ADAMW)
    _compare(replace(there, values=stir(there.values, 1)), 1e-10)


@pytest.mark.parametrize("name", ["bert-all-linear", "gpt2-all-linear", "bert-bitfit"])
def test_adamw_in_single_precision(zoo: Zoo, name: str) -> None:
    kind, adapter = ADAPTERS[name]
    train = ADAMW_NOISE if "bitfit" in name else ADAMW
    there = site(zoo, kind, adapter=adapter, train=train, dtype="float32")
    _compare(replace(there, values=stir(there.values, 1)), 1e-4)


@pytest.mark.parametrize("name", ["bert-head", "gpt2-all-linear", "bert-bitfit"])
def test_sgd(zoo: Zoo, name: str) -> None:
    kind, adapter = ADAPTERS[name]
    there = site(zoo, kind, adapter=adapter, train=SGD)
    _compare(replace(there, values=stir(there.values, 1)), 1e-10)
    there = site(zoo, kind, adapter=adapter, train=SGD, dtype="float32")
    stacked, _ = there.train(group_size=5)
    alone, _ = there.train(group_size=1)
    for client, one in alone.items():
        assert distance(stacked[client].end, one.end) < 1e-6


def test_label_terms_of_each_client_a_held_head_and_a_later_round(zoo: Zoo) -> None:
    there = site(
        zoo,
        adapter=LORA,
        train=ADAMW,
        objective={"terms": class_terms(4, restricted=True, weights="balanced-per-client")},
        train_head=False,
    )
    there = replace(there, values=stir(there.values, 2))
    _compare(there, 1e-10, round=2)
    trained, _ = there.train(group_size=5, round=2)
    assert not any(name.startswith("classifier") for name in trained["ada"].end)


@pytest.mark.parametrize("train_head", [True, False])
def test_clients_that_start_from_their_own_values(zoo: Zoo, train_head: bool) -> None:
    there = site(zoo, adapter=LORA, train={**ADAMW, "head_learning_rate": 1e-2},
                 train_head=train_head)  # fmt: skip
    own = {client: stir(there.values, 10 + k) for k, client in enumerate(there.clients)}
    _compare(there, 1e-10, own=own)


def test_groups_of_two_are_the_same_as_groups_of_five(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=ADAMW)
    pairs, _ = there.train(group_size=2)
    fives, _ = there.train(group_size=5)
    for client in there.clients:
        assert distance(pairs[client].end, fives[client].end) < 1e-10


def test_scaffold_and_prox_terms_stack(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=SGD)
    offsets = {client: stir(there.values, 30 + k) for k, client in enumerate(there.clients)}
    rule = LocalRule(
        proximal=0.3, offset=lambda request: offsets[request.context.client], epochs=3,
        mean_gradient=True,
    )  # fmt: skip
    _compare(replace(there, values=stir(there.values, 1)), 1e-10, rule=rule)


RANKS = {"ada": 4, "bob": 1, "cy": 2, "dee": 1, "eve": 4}


def _cut(tree: Tree, r: int) -> Tree:
    """The first r rows of A and columns of B."""
    rows = {name: value[:r] for name, value in tree.items() if name.endswith("lora_A.weight")}
    columns = {name: value[:, :r] for name, value in tree.items() if name.endswith("lora_B.weight")}
    return {name: value.clone() for name, value in (tree | rows | columns).items()}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("train", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_ranks_of_their_own(zoo: Zoo, train: dict[str, Any], rslora: bool) -> None:
    """With decay, momentum, clipping, a proximal term and a control variate for each client."""
    there = site(zoo, adapter={**LORA, "use_rslora": rslora}, train=train)
    there = replace(there, values=stir(there.values, 1))
    own = {client: _cut(there.values, r) for client, r in RANKS.items()}
    offsets = {client: _cut(stir(zeros_like(there.values), 30 + k), r)
               for k, (client, r) in enumerate(RANKS.items())}  # fmt: skip
    rule = LocalRule(
        proximal=0.3, offset=lambda request: offsets[request.context.client], epochs=3,
        mean_gradient=True,
    )  # fmt: skip
    _compare(there, 1e-10, own=own, rule=rule)
    stacked, _ = there.train(group_size=5, own=own, rule=rule)
    for client, one in stacked.items():
        for found in (one.end, one.mean_gradient):
            assert {n: v.shape for n, v in found.items()} == {
                n: v.shape for n, v in own[client].items()
            }


def test_ranks_of_their_own_in_single_precision(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=SGD, dtype="float32")
    there = replace(there, values=stir(there.values, 1))
    own = {client: _cut(there.values, r) for client, r in RANKS.items()}
    stacked, _ = there.train(group_size=5, own=own)
    alone, _ = there.train(group_size=1, own=own)
    for client, one in alone.items():
        assert distance(stacked[client].end, one.end) < 1e-6


@pytest.mark.parametrize("train", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_what_fills_up_a_rank_stays_zero(zoo: Zoo, train: dict[str, Any]) -> None:
    there = site(zoo, adapter=LORA, train=train)
    there = replace(there, values=stir(there.values, 1))
    requests = there.requests(own={"ada": _cut(there.values, 2)}, clients=["cy", "ada"])
    jobs = [Job(request, there.bench.examples(request.context.client, "train"), [[0, 1], [0]] * 3)
            for request in requests]  # fmt: skip
    offset = stir(zeros_like(there.values), 3)
    offsets = {"cy": offset, "ada": _cut(offset, 2)}
    rule = LocalRule(proximal=0.3, offset=lambda request: offsets[request.context.client])
    run = Stack(there.bench, jobs, rule)
    for number in range(6):
        run.step(number)
    adapted = {n: v for n, v in unflatten(run.params, run.like).items() if "lora" in n}
    assert adapted
    for name, value in adapted.items():
        filled = value[1, 2:] if name.endswith("lora_A.weight") else value[1, :, 2:]
        assert filled.numel() == value[1].numel() // 2
        assert not filled.any(), name
        assert value[0].all()


def test_a_client_that_is_done_stays_as_it_is(zoo: Zoo) -> None:
    row = {"text": "reef tide coral", "label": "sea"}
    other = {"text": "sun moon star", "label": "sky"}
    ends: list[Tree] = []
    for rest in (2, 12):
        rows = {"short": [row, other], "long": [other] * rest}
        there = site(zoo, adapter=LORA, train=SGD, rows=rows)
        there = replace(there, values=stir(there.values, 1))
        trained, _ = there.train(group_size=2)
        assert trained["short"].steps == 1
        assert trained["long"].steps == -(-rest // 4)
        ends.append(trained["short"].end)
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name


def _poisoned(there: Site, value: float) -> dict[str, Tree]:
    name = next(name for name in there.values if "lora_B" in name)
    bad = there.values[name].clone()
    bad[0, 0] = value
    return {"cy": {name: bad}}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_client_with_a_nan_fails_alone(zoo: Zoo, value: float) -> None:
    there = site(zoo, adapter=LORA, train=ADAMW)
    bad = _poisoned(there, value)
    healthy, _ = there.train(group_size=5)
    stacked, failures = there.train(group_size=5, own=bad)
    assert set(failures) == {"cy"}
    assert failures["cy"].kind == "diverged"
    assert "loss" in failures["cy"].message
    assert set(stacked) == set(there.clients) - {"cy"}
    for client, one in stacked.items():
        assert one.loss == healthy[client].loss
        assert all(torch.equal(one.end[name], healthy[client].end[name]) for name in one.end)


def test_without_the_failing_client_the_others_are_the_same(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=ADAMW)
    bad = _poisoned(there, float("nan"))
    rest = [client for client in there.clients if client != "cy"]
    alone, _ = there.train(group_size=1, own=bad)
    without, _ = there.train(group_size=1, clients=rest)
    for client in rest:
        assert all(torch.equal(alone[client].end[n], v) for n, v in without[client].end.items())
    stacked, _ = there.train(group_size=5, own=bad)
    without, _ = there.train(group_size=4, clients=rest)
    for client in rest:
        assert distance(stacked[client].end, without[client].end) < 1e-12


def test_a_client_that_overflows_on_the_way_fails_alone(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={**SGD, "warmup_steps": 0}, dtype="float32")
    # Pulled to 1e30 by its control variate, "ada" overflows float32 in a later forward pass.
    huge = {name: torch.full_like(value, 1e30) for name, value in there.values.items()}
    calm = {name: torch.zeros_like(value) for name, value in there.values.items()}
    both = {
        "healthy": LocalRule(offset=lambda request: calm),
        "sick": LocalRule(offset=lambda r: huge if r.context.client == "ada" else calm),
    }
    healthy, none = there.train(group_size=5, rule=both["healthy"])
    stacked, failures = there.train(group_size=5, rule=both["sick"])
    assert not none
    assert set(failures) == {"ada"}
    for client, one in stacked.items():
        assert all(torch.equal(one.end[name], healthy[client].end[name]) for name in one.end)


def test_values_that_overflow_in_the_last_step_are_not_called_a_loss(zoo: Zoo) -> None:
    rows = labelled_rows({"ada": 2, "bob": 2})
    there = site(zoo, adapter=LORA, train=SGD | {"warmup_steps": 0},
                 dtype="float32", rows=rows)  # fmt: skip
    huge = {name: torch.full_like(value, 3e38) for name, value in there.values.items()}
    calm = {name: torch.zeros_like(value) for name, value in there.values.items()}
    there = there.with_train(learning_rate=100.0)
    _, failures = there.train(
        group_size=2,
        rule=LocalRule(offset=lambda r: huge if r.context.client == "ada" else calm),
    )
    assert set(failures) == {"ada"}
    assert "values" in failures["ada"].message


def test_a_client_without_rows_is_a_failure(zoo: Zoo) -> None:
    rows = labelled_rows({"ada": 3, "bob": 2}) | {"nobody": []}
    there = site(zoo, adapter=LORA, rows=rows)
    trained, failures = there.train(group_size=3)
    assert set(trained) == {"ada", "bob"}
    assert failures["nobody"].kind == "data"


def test_what_was_sent_is_not_changed(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=ADAMW)
    before = {name: value.clone() for name, value in there.values.items()}
    frozen = {name: value.clone() for name, value in there.base.model.state_dict().items()}
    trained, _ = there.train(group_size=5)
    assert all(torch.equal(there.values[name], value) for name, value in before.items())
    now = there.base.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert all(torch.equal(trained["bob"].start[n], before[n]) for n in trained["bob"].start)


def test_the_mean_gradient_is_what_plain_sgd_walked(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={"optimizer": "sgd", "learning_rate": 0.1})
    there = replace(there, values=stir(there.values, 1))
    trained, _ = there.train(group_size=5)
    for one in trained.values():
        walked = {name: -value / (0.1 * one.steps) for name, value in moved(one).items()}
        assert distance(walked, one.mean_gradient) < 1e-10


def test_seed_round_and_client_address_the_dropout(zoo: Zoo) -> None:
    row = {"text": "reef tide coral lagoon island", "label": "sea"}
    there = site(zoo, adapter={"lora_dropout": 0.5}, rows={"ada": [row] * 2, "bob": [row] * 2})
    there = replace(there, values=stir(there.values, 1))
    first, _ = there.train(group_size=2)
    again, _ = there.train(group_size=2)
    assert all(torch.equal(first["ada"].end[n], again["ada"].end[n]) for n in first["ada"].end)
    assert distance(first["ada"].end, first["bob"].end) > 1e-6
    for other in (there.train(group_size=2, seed=6), there.train(group_size=2, round=2)):
        assert distance(first["ada"].end, other[0]["ada"].end) > 1e-6
