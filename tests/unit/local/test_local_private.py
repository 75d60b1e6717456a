"""Training that hides rows: in a stack as alone, whatever trains; and nothing else gets out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from atoll.accounting import Poisson, Release
from atoll.algorithms.fedavg import fedavg
from atoll.algorithms.fednova import fednova
from atoll.algorithms.fedopt import fedopt
from atoll.algorithms.fedprox import fedprox
from atoll.algorithms.scaffold import scaffold
from atoll.core import Algorithm, Failure, Reply, validate
from atoll.local.boundary import find_boundary
from atoll.local.job import Job
from atoll.local.per_example import PerExample
from atoll.local.prefix import Prefix, memory_shelf, with_kin
from atoll.local.train import LocalRule, Trained
from atoll.local.work import local_training
from atoll.models.auto import load_masked, load_tagger
from atoll.models.classification import class_terms
from atoll.models.locate import locate
from atoll.models.masked import masked
from atoll.models.objective import Batch
from atoll.models.preference import Dpo, preference, reference_of
from atoll.models.tokens import tagging
from atoll.round import answer
from atoll.tree import Tree, flatten
from tests.support.federation import Site, distance, labelled_rows, moved, probe, site, stir
from tests.support.models import Zoo
from tests.support.task_sites import preference_rows, site_of
from tests.support.text_tasks import TAGS, plain_rows, tagged_rows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
LORA: dict[str, Any] = {"r": 4, "lora_dropout": 0.1}
HARD: dict[str, Any] = {
    "optimizer": "adamw",
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    # Adam divides noise by noise where there is no signal, as at the bias of a key.
    "adam_epsilon": 1e-4,
}
STEP: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1.0, "max_steps": 1}


def rule(clip: float = 0.3, noise: float = 0.8, *, key: bytes = KEY, rate: float | None = None,
         **more: Any) -> LocalRule:  # fmt: skip
    return LocalRule(private=PerExample(clip, noise, lambda context: key, rate), **more)


def _site(kind: str = "bert", **adapter: Any) -> Callable[..., Site]:
    return lambda zoo, train: site(zoo, kind, adapter=adapter, train=train)


def _masked(zoo: Zoo, train: Mapping[str, Any]) -> Site:
    base = load_masked(locate(zoo("bert")), dtype="float64")
    task = masked(base.tokenizer, max_length=24, probability=0.4)
    return site_of(base, task, plain_rows(), adapter=LORA, train=train)


def _answers(zoo: Zoo, train: Mapping[str, Any]) -> Site:
    base = zoo.base("llama")
    reference = reference_of(base.model, torch.float64)
    task = preference(base.tokenizer, reference, Dpo(), max_length=40)
    return site_of(base, task, preference_rows(), adapter={"r": 2}, train=train)


def _tags(zoo: Zoo, train: Mapping[str, Any]) -> Site:
    base = load_tagger(locate(zoo("bert")), num_tags=len(TAGS), dtype="float64")
    task = tagging(base.tokenizer, tags=TAGS, max_length=24)
    return site_of(base, task, tagged_rows(), adapter={"r": 2}, train=train)


SITES: dict[str, Callable[..., Site]] = {
    "lora": _site(**LORA),
    "lora-gpt2": _site("gpt2", **LORA),
    "lora-llama": _site("llama", r=2, lora_dropout=0.2, use_rslora=True),
    "masked-tokens": _masked,
    "two-answers": _answers,
    "tags": _tags,
    "head": _site(method="none"),
    "bottleneck": _site(method="bottleneck"),
    "ia3": _site("llama", method="ia3"),
    "bitfit": _site("gpt2", method="bitfit"),
    "layers": _site("gpt2", method="layers", num_layers=1),
}


def compare(there: Site, tolerance: float, **asked: Any) -> None:
    stacked, failed = there.train(group_size=5, **asked)
    alone, failed_alone = there.train(group_size=1, **asked)
    assert not failed
    assert not failed_alone
    for client, one in alone.items():
        assert stacked[client].spends == one.spends
        assert stacked[client].steps == one.steps == one.spends.steps
        assert stacked[client].loss == pytest.approx(one.loss, rel=tolerance)
        assert distance(moved(stacked[client]), moved(one)) < tolerance, client
        assert distance(stacked[client].mean_gradient, one.mean_gradient) < tolerance, client
        assert min(float(value.abs().max()) for value in moved(one).values()) > 0
    assert len({one.steps for one in alone.values()}) > 2, "the clients are not uneven"


@pytest.mark.parametrize("name", SITES)
def test_a_stack_gives_what_each_client_gives_alone(name: str, zoo: Zoo) -> None:
    there = SITES[name](zoo, HARD)
    there = replace(there, values=stir(there.values, 1))
    assert there.built.alone is None
    compare(there, 1e-8, rule=rule(mean_gradient=True))


def test_with_terms_and_a_rate_of_the_head(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={**HARD, "head_learning_rate": 1e-2})
    offsets = {client: stir(there.values, 30 + k) for k, client in enumerate(there.clients)}
    bent = rule(
        proximal=0.3, offset=lambda request: offsets[request.context.client], epochs=3.0,
        mean_gradient=True,
    )  # fmt: skip
    own = {client: stir(there.values, 10 + k) for k, client in enumerate(there.clients)}
    compare(there, 1e-8, rule=bent, own=own, round=2)


def test_heads_that_are_held(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=HARD, train_head=False)
    own = {client: stir(there.values, 10 + k) for k, client in enumerate(there.clients)}
    compare(there, 1e-8, own=own, rule=rule(mean_gradient=True))


def test_ranks_of_their_own(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=HARD)
    there = replace(there, values=stir(there.values, 1))
    ranks = {"ada": 4, "bob": 1, "cy": 2, "dee": 1, "eve": 4}
    own = {client: _cut(there.values, r) for client, r in ranks.items()}
    compare(there, 1e-8, own=own, rule=rule(mean_gradient=True))
    stacked, _ = there.train(group_size=5, own=own, rule=rule())
    assert {n: v.shape for n, v in stacked["cy"].end.items()} == {
        n: v.shape for n, v in own["cy"].items()
    }


def _cut(tree: Tree, r: int) -> Tree:
    rows = {name: value[:r] for name, value in tree.items() if name.endswith("lora_A.weight")}
    columns = {name: value[:, :r] for name, value in tree.items() if name.endswith("lora_B.weight")}
    return {name: value.clone() for name, value in (tree | rows | columns).items()}


ALONE: dict[str, Callable[..., Site]] = {
    **{name: there for name, there in SITES.items() if name not in ("lora", "masked-tokens")},
    "lora": _site(r=4),
    "lora-gpt2": _site("gpt2", r=4),
    "lora-llama": _site("llama", r=2),
    "deberta": _site("deberta", r=2),
    # One client at a time.
    "full": _site(method="full"),
    "full-gpt2": _site("gpt2", method="full"),
    "dora": _site("llama", method="dora", config={"r": 2}),
    "lily": _site(method="lily"),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_row_counts_as_a_client_of_one_row_does(name: str, zoo: Zoo) -> None:
    """What a client clips to `max_grad_norm` has one row; a client that hides rows has them all."""
    there = ALONE[name](zoo, STEP)
    for module in there.built.model.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # whose draws would have other addresses
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    there = replace(there, values=stir(there.values, 1, std=0.02))
    rows = there.bench.examples("dee", "train")
    single = {f"row-{i}": [row] for i, row in enumerate(rows)}
    apart = replace(there, clients=tuple(single),
                    bench=replace(there.bench, examples=lambda c, split: single[c]))  # fmt: skip
    norms = {c: _size(moved(one)) for c, one in
             apart.with_train(max_grad_norm=None).train(group_size=1)[0].items()}  # fmt: skip
    clip = sorted(norms.values())[2]
    each, failures = apart.with_train(max_grad_norm=clip).train(group_size=1)
    assert not failures
    want = {
        name: torch.stack([moved(one)[name] for one in each.values()]).mean(0)
        for name in there.values
    }
    trained, failures = there.train(group_size=1, clients=["dee"], rule=rule(clip, 0.0, rate=1.0))
    assert not failures
    found = moved(trained["dee"])
    gap = _size({name: found[name] - want[name] for name in want})
    assert gap < 1e-5 * _size(want)  # torch's clipping has a small number beside the norm


def _size(tree: Mapping[str, Tensor]) -> float:
    return float(torch.cat([value.flatten() for value in tree.values()]).norm())


def test_no_row_moves_the_sum_by_more_than_the_clip(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=STEP)
    there = replace(there, values=stir(there.values, 1))
    clip, rows = 0.05, list(there.bench.examples("ada", "train"))

    def total(kept: list[Any]) -> Tensor:
        bench = replace(there.bench, examples=lambda client, split: kept)
        asked = {"group_size": 1, "clients": ["ada"], "rule": rule(clip, 0.0, rate=1.0)}
        trained, _ = replace(there, bench=bench).train(**asked)
        change = {n: v.unsqueeze(0) for n, v in moved(trained["ada"]).items()}
        return flatten(change)[0] * -len(kept)

    for place in range(len(rows)):
        # Draws stay with places, so that who leaves stands last.
        order = [row for i, row in enumerate(rows) if i != place]
        gap = float((total([*order, rows[place]]) - total(order)).norm())
        assert 0.9 * clip < gap <= clip * (1 + 1e-6)


def test_batches_without_a_row_move_by_noise_alone(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={**HARD, "max_steps": 3})
    runs: list[int] = []
    there.base.model.register_forward_pre_hook(lambda module, args: runs.append(1))
    trained, failures = there.train(group_size=5, rule=rule(rate=1e-12))
    assert not failures
    assert not runs
    assert all(min(float(v.abs().max()) for v in moved(one).values()) > 0
               for one in trained.values())  # fmt: skip
    others = labelled_rows({client: len(there.bench.examples(client, "train"))
                            for client in there.clients}, longest=3)  # fmt: skip
    changed = site(zoo, adapter=LORA, train={**HARD, "max_steps": 3}, rows=others)
    again, _ = replace(changed, values=there.values).train(group_size=1, rule=rule(rate=1e-12))
    for client, one in trained.items():
        assert all(torch.equal(one.end[name], again[client].end[name]) for name in one.end)


def test_the_noise_of_a_step_has_the_variance_that_was_promised(zoo: Zoo) -> None:
    there = site(zoo, adapter={"r": 8}, train=STEP)
    there = replace(there, values=stir(there.values, 1))
    noisy, _ = there.train(group_size=5, rule=rule(0.3, 2.0, rate=0.5))
    clean, _ = there.train(group_size=5, rule=rule(0.3, 0.0, rate=0.5))
    drawn: list[Tensor] = []
    for client, one in noisy.items():
        expected = 0.5 * len(there.bench.examples(client, "train"))
        gap = {n: (clean[client].end[n] - v).unsqueeze(0) for n, v in one.end.items()}
        drawn.append(flatten(gap)[0] * expected / (0.3 * 2.0))
    assert len(drawn) == 5
    whole = torch.cat(drawn)
    assert len(whole) > 25_000
    assert abs(float(whole.var()) - 1) < 0.05
    assert stats.kstest(whole.numpy(), "norm").pvalue > 1e-3
    # Each client's is its own.
    assert float((torch.corrcoef(torch.stack(drawn)) - torch.eye(5)).abs().max()) < 0.06


def test_a_secret_repeats_its_run_and_another_one_shares_nothing_with_it(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={**STEP, "max_steps": 2})
    first, _ = there.train(group_size=5, rule=rule())
    again, _ = there.train(group_size=5, rule=rule(), seed=8)
    other, _ = there.train(group_size=5, rule=rule(key=OTHER))
    for client, one in first.items():
        assert all(torch.equal(one.end[n], v) for n, v in again[client].end.items())
        assert not any(bool((v == one.end[n]).any()) for n, v in moved(other[client]).items())
        pair = torch.stack([
            flatten({n: v.unsqueeze(0) for n, v in moved(x).items()})[0]
            for x in (one, other[client])
        ])  # fmt: skip
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.1


def test_another_broadcast_of_one_exchange_has_other_noise(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=STEP)
    first, _ = there.train(group_size=1, clients=["ada"], rule=rule(rate=1e-12))
    near = replace(there, values={n: v + 1e-12 for n, v in there.values.items()})
    again, _ = near.train(group_size=1, clients=["ada"], rule=rule(rate=1e-12))
    gaps = [moved(again["ada"])[n] - v for n, v in moved(first["ada"]).items()]
    assert min(float(gap.norm()) for gap in gaps) > 0.01


def test_pieces_are_as_large_as_memory_takes_and_change_nothing(zoo: Zoo) -> None:
    ends: list[dict[str, Trained]] = []
    for size in (1, 2, 7):
        there = site(zoo, adapter=LORA, train={**HARD, "per_device_train_batch_size": size})
        rows: list[int] = []
        there.base.model.register_forward_pre_hook(
            lambda module, args, given, seen=rows: seen.append(len(given["input_ids"])),
            with_kwargs=True,
        )
        trained, _ = there.train(group_size=2, rule=rule(rate=0.8))
        assert 0 < max(rows) <= 2 * size
        ends.append(trained)
    for other in ends[1:]:
        for client, one in ends[0].items():
            assert distance(moved(other[client]), moved(one)) < 1e-8


def test_blocks_that_run_again_and_outputs_that_are_kept_change_nothing(zoo: Zoo) -> None:
    adapter = {"target_modules": r"model\.layers\.1\..*", "lora_dropout": 0.2}
    there = site(zoo, "llama", adapter=adapter, train=HARD)
    plain, _ = there.train(group_size=3, rule=rule())
    rows = {client: with_kin(there.bench.examples(client, "train")) for client in there.clients}
    boundary = find_boundary(there.bench.model, probe(there.bench.objective, rows))
    assert boundary is not None
    prefix = Prefix(boundary, there.bench.objective.collate, memory_shelf(), b"")
    bench = replace(there.bench, prefix=prefix, examples=lambda client, split: rows[client])
    there.bench.model.recompute()
    for found in (there, replace(there, bench=bench)):
        trained, failures = found.train(group_size=3, rule=rule())
        assert not failures
        for client, one in plain.items():
            assert distance(moved(trained[client]), moved(one)) < 1e-8


def _poisoned(there: Site, label: int, value: float) -> Site:
    """The loss of rows of a label is no number."""
    inner = there.bench.objective.losses

    def losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
        return torch.where(batch.target[:, 0] == label, value, 1.0) * inner(logits, batch, terms)

    objective = replace(there.bench.objective, losses=losses)
    return replace(there, bench=replace(there.bench, objective=objective))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_without_a_finite_gradient_is_left_out_in_silence(zoo: Zoo, value: float) -> None:
    there = site(zoo, adapter={"r": 2}, train=STEP)
    label = int(there.bench.examples("cy", "train")[0].target[0])
    sick = _poisoned(there, label, value)
    _, failures = sick.train(group_size=5)
    assert "cy" in failures, "a plain client fails by such a row"
    trained, failures = sick.train(group_size=5, rule=rule(noise=0.0, rate=1.0))
    assert not failures
    assert set(trained) == set(there.clients)
    rows = there.bench.examples("cy", "train")
    well = [row for row in rows if int(row.target[0]) != label]
    bench = replace(there.bench, examples=lambda client, split: well)
    healthy, _ = replace(there, bench=bench).train(
        group_size=1, clients=["cy"], rule=rule(noise=0.0, rate=1.0)
    )
    for name, value_of in moved(trained["cy"]).items():
        torch.testing.assert_close(
            value_of * len(rows), moved(healthy["cy"])[name] * len(well), rtol=1e-9, atol=1e-12
        )


def test_values_that_overflow_are_a_failure_that_tells_of_no_loss(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={**STEP, "learning_rate": 1e38}, dtype="float32")
    _, failures = there.train(group_size=5, rule=rule(clip=1e3))
    assert set(failures) == set(there.clients)
    assert {one.kind for one in failures.values()} == {"diverged"}
    assert not any("loss" in one.message for one in failures.values())


def test_a_reply_holds_no_loss(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train=HARD)
    bench = replace(there.bench, group_size=5)
    work, plain = local_training(bench, rule=rule()), local_training(bench)
    assert set(plain.channels) - set(work.channels) == {"metrics"}
    requests = there.requests()
    replies = list(work.work(requests))
    assert len(replies) == 5
    for reply in replies:
        assert isinstance(reply, Reply)
        assert set(reply.payload) == set(work.channels)
        validate(reply.payload, work.template(requests[0].payload))
    told = [reply for reply in plain.work(requests) if isinstance(reply, Reply)]
    assert all("loss" in reply.payload["metrics"].tree for reply in told)


@pytest.mark.parametrize("made", [fedavg, fedprox, fednova, scaffold, fedopt])
def test_a_bench_hides_rows_whatever_the_algorithm(
    made: Callable[..., Algorithm], zoo: Zoo
) -> None:
    there = site(zoo, adapter={"r": 2}, train={"optimizer": "sgd", "learning_rate": 0.1})
    private = PerExample(0.3, 0.8, lambda context: KEY)
    algorithm = made(replace(there.bench, private=private, group_size=5))
    assert "metrics" not in algorithm.client.channels
    head = f"{there.bench.head}."
    state = algorithm.server.init({
        "adapter": {n: v for n, v in there.values.items() if not n.startswith(head)},
        "head": {n: v for n, v in there.values.items() if n.startswith(head)},
    })  # fmt: skip
    requests = [
        replace(request, payload=algorithm.server.broadcast(state, request.context.client))
        for request in there.requests()
    ]
    replies = list(answer(algorithm, requests))
    assert {reply.client for reply in replies} == set(there.clients)
    like = algorithm.client.template(requests[0].payload)
    for reply in replies:
        assert isinstance(reply, Reply)
        validate(reply.payload, like)
        assert all(bool(value.any()) for value in reply.payload["update"].tree.values())


def test_the_loss_that_stays_is_the_mean_of_the_rows_that_were_drawn(zoo: Zoo) -> None:
    there = site(zoo, "llama", adapter={"r": 2}, train={**STEP, "max_grad_norm": None})
    rows = there.bench.examples("ada", "train")
    single = {f"row-{i}": [row] for i, row in enumerate(rows)}
    bench = replace(there.bench, examples=lambda client, split: single[client])
    each, _ = replace(there, bench=bench, clients=tuple(single)).train(group_size=1)
    trained, _ = there.train(group_size=5, rule=rule(rate=1.0))
    mean = sum(one.loss for one in each.values()) / len(rows)
    assert trained["ada"].loss == pytest.approx(mean, rel=1e-9)
    assert there.train(group_size=5, rule=rule(rate=1e-12))[0]["ada"].loss == 0.0


def _price(rate: float, steps: int) -> Release:
    return Release(unit="example", noise_multiplier=0.8, sampling=Poisson(rate=rate), steps=steps)


def test_the_number_of_steps_and_the_price_follow_from_settings_and_rows(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={"per_device_train_batch_size": 2})
    trained, _ = there.train(group_size=5, rule=rule())
    assert {client: one.spends for client, one in trained.items()} == {
        "ada": _price(2 / 7, 4),
        "bob": _price(1.0, 1),
        "cy": _price(2 / 11, 6),
        "dee": _price(2 / 5, 3),
        "eve": _price(1.0, 1),
    }
    assert there.train(group_size=5)[0]["ada"].spends is None


def test_sgd_walks_the_mean_of_the_noisy_gradients(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, train={"optimizer": "sgd", "learning_rate": 0.1})
    trained, _ = there.train(group_size=5, rule=rule(mean_gradient=True))
    for one in trained.values():
        walked = {name: -value / (0.1 * one.steps) for name, value in moved(one).items()}
        assert distance(walked, one.mean_gradient) < 1e-10


def test_a_client_without_rows_is_a_failure(zoo: Zoo) -> None:
    there = site(zoo, adapter=LORA, rows=labelled_rows({"ada": 3}) | {"nobody": []})
    trained, failures = there.train(group_size=2, rule=rule())
    assert set(trained) == {"ada"}
    assert isinstance(failures["nobody"], Failure)


def test_a_secret_is_not_printed(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "none"})
    (request,) = there.requests(clients=["ada"])
    job = Job(request, [], [], key=KEY)
    assert str(KEY)[2:20] not in repr(job)
    assert str(list(KEY))[:12] not in json.dumps(repr(job))


def test_fixed_weights_of_classes_are_no_secret(zoo: Zoo) -> None:
    terms = class_terms(4, weights=[1.0, 2.0, 0.5, 1.0])
    there = site(zoo, adapter=LORA, train=HARD, objective={"terms": terms})
    compare(replace(there, values=stir(there.values, 2)), 1e-8, rule=rule(mean_gradient=True))
