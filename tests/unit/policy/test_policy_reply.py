"""What may leave: real replies of every method, every algorithm and every head."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.adapters.probe import head_layers
from atoll.algorithms.fedavg import fedavg
from atoll.algorithms.fednova import fednova
from atoll.algorithms.fedopt import fedopt
from atoll.algorithms.fedprox import fedprox
from atoll.algorithms.heads.fed3r import fed3r
from atoll.algorithms.heads.fedlda import fedlda
from atoll.algorithms.heads.fedlogistic import fedlogistic
from atoll.algorithms.heads.fedncm import fedncm
from atoll.algorithms.scaffold import scaffold
from atoll.core import (
    Algorithm,
    Channel,
    Context,
    Failure,
    Payload,
    Reply,
    Request,
    Stage,
    Task,
    metrics_of,
    validate,
)
from atoll.core.wire import unpack
from atoll.errors import DataError, PolicyError, RunError
from atoll.frames import Frame, Kind
from atoll.local.bench import Bench
from atoll.local.evaluation import evaluation
from atoll.models.locate import locate
from atoll.models.vision import load_vision
from atoll.policy import (
    Policy,
    check_reply,
    load_policy,
    released,
    told,
    told_error,
    without_metrics,
)
from atoll.policy.names import GROUPS, may_leave
from atoll.round import answer
from atoll.runtimes.asking import Asking
from atoll.runtimes.flower_client import Guard, answer_ask
from atoll.runtimes.held import Held
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.letters import Letter
from atoll.runtimes.store import memory_store
from atoll.stages import quantise, top_k
from tests.conformance.tiny import ROWS, Scene, Tiny, first_state, make_bench
from tests.support.federation import Site, site
from tests.support.gallery import Gallery
from tests.support.heads import head_bench, labelled, rows_of, split
from tests.support.methods import STACKED, TUNERS, fits
from tests.support.models import Zoo

METHODS: Mapping[str, tuple[str, dict[str, Any]]] = {
    **{f"{kind}-lora": (kind, {"r": 2}) for kind in ("bert", "gpt2", "llama")},
    **{f"{kind}-bitfit": (kind, {"method": "bitfit"}) for kind in ("bert", "gpt2")},
    **{name: STACKED[name] for name in ("bert-pfeiffer", "gpt2-houlsby", "llama-ia3")},
    **{name: STACKED[name] for name in ("bert-layers", "gpt2-layers", "llama-layers")},
    "bert-none": ("bert", {"method": "none"}),
}
ALGORITHMS: Mapping[str, Callable[[Bench], Algorithm]] = {
    "fedavg": fedavg, "fedprox": fedprox, "fednova": fednova, "fedopt": fedopt,
    "scaffold": scaffold,
}  # fmt: skip
HEADS = {"lda": fedlda, "ridge": fed3r, "means": fedncm, "logistic": fedlogistic}


def policy(tmp_path: Path, text: str) -> Policy:
    file = tmp_path / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return load_policy(file)


def reply_of(algorithm: Algorithm, request: Request) -> Payload:
    (found,) = answer(algorithm, [request])
    assert isinstance(found, Reply), found
    return found.payload


def trained(there: Site, make: Callable[[Bench], Algorithm] = fedavg, *stages: Stage) -> Payload:
    """What the client with one row sends after one step."""
    algorithm = make(there.bench)
    algorithm = replace(algorithm, stages=(*algorithm.stages, *stages))
    (request,) = there.requests(clients=("eve",))
    if make is scaffold:
        values = request.payload["adapter"].tree | request.payload["head"].tree
        control = {name: torch.zeros_like(value) for name, value in values.items()}
        request = replace(request, payload={**request.payload, "control": Channel(control)})
    return reply_of(algorithm, request)


def rule_of(rules: Policy, payload: Payload, *, nbytes: int = 0, task: Any = None) -> str | None:
    try:
        check_reply(rules, payload, nbytes=nbytes, task=task)
    except PolicyError as error:
        return error.rule
    return None


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_trains_may_leave_by_default(zoo: Zoo, name: str) -> None:
    kind, adapter = METHODS[name]
    payload = trained(site(zoo, kind, adapter=adapter, dtype="float32"))
    assert payload["update"].tree
    check_reply(Policy(), payload, nbytes=0)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_full_model_may_not(zoo: Zoo, tmp_path: Path, kind: str) -> None:
    payload = trained(site(zoo, kind, adapter={"method": "full"}, dtype="float32"))
    with pytest.raises(PolicyError, match=r"channel 'update' holds .*, which may not leave") as why:
        check_reply(Policy(), payload, nbytes=0)
    assert why.value.rule == "tensors"
    assert rule_of(policy(tmp_path, 'tensors: ["*"]'), payload) is None


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta", "gpt2", "llama", "vit", "resnet"])
def test_a_head_is_known_by_its_name_and_the_rest_of_a_model_by_its_embeddings(
    zoo: Zoo, gallery: Gallery, kind: str
) -> None:
    """Layers that a checkpoint lacks, as DeBERTa's pooler, are trained and sent with its head."""
    if kind in ("vit", "resnet"):
        base = load_vision(locate(gallery(kind)), num_labels=3)
    else:
        base = zoo.base(kind, labels=3, pooling="model")
    names = [name for name, _ in base.model.named_parameters()]
    heads = tuple(f"{layer}." for layer in head_layers(base))
    of_heads = [name for name in names if name.startswith(heads)]
    assert of_heads
    assert all(may_leave(name, ("heads",)) for name in of_heads)
    assert any("embed" in name or "wte" in name for name in names
               if not may_leave(name, tuple(GROUPS)))  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:Sparse invariant checks:UserWarning"
)
def test_what_adapters_of_peft_train_may_leave(zoo: Zoo) -> None:
    for method in TUNERS:
        names = site(zoo, "bert", adapter=fits(method, "bert"), dtype="float32").values
        odd = [name for name in names if not may_leave(name, ("adapters", "heads"))]
        # Which tokens changed would tell which words the site has.
        assert len(odd) == (method == "trainable_tokens"), method


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("packed", [(), (top_k(fraction=0.1), quantise(dtype="int8"))])
def test_what_an_algorithm_sends_may_leave_packed_or_not(
    zoo: Zoo, name: str, packed: tuple[Stage, ...]
) -> None:
    payload = trained(site(zoo, adapter={"r": 2}, dtype="float32"), ALGORITHMS[name], *packed)
    check_reply(Policy(), payload, nbytes=0)
    only_heads = Policy.model_validate({"tensors": ("heads",)})
    assert rule_of(only_heads, payload) == "tensors"


@pytest.mark.parametrize("head", HEADS)
def test_statistics_of_heads(head: str, tmp_path: Path) -> None:
    rows = split(*rows_of(12, 3, 2, seed=1), owners=[0] * 12, bias=True)
    bench = head_bench(3, 2, bias=True, clients=rows)
    algorithm = HEADS[head](bench, labelled(rows))
    broadcast = {"adapter": Channel({}), "head": Channel(bench.model.init(0))}
    context = Context(0, "r", 0, 0, ("client0",), 1, "client0")
    payload = reply_of(algorithm, Request(context, broadcast))
    assert rule_of(Policy(), payload) is None
    assert rule_of(policy(tmp_path, "tensors: [adapters, heads]"), payload) == "tensors"
    assert rule_of(policy(tmp_path, 'tensors: ["statistics.*"]'), payload) is None
    held = policy(tmp_path, "label_histograms: false")
    assert rule_of(held, payload) == "label_histograms"


def test_the_bytes_of_the_message_count_and_never_less_than_its_values(tmp_path: Path) -> None:
    payload = {"update": Channel({"a.lora_A.weight": torch.zeros(25)})}
    rules = policy(tmp_path, "max_payload: 100")
    assert rule_of(rules, payload, nbytes=0) is None
    assert rule_of(rules, payload, nbytes=100) is None
    assert rule_of(rules, payload, nbytes=101) == "max_payload"
    payload["update"].tree["a.lora_B.weight"] = torch.zeros(1)
    assert rule_of(rules, payload, nbytes=0) == "max_payload"


@pytest.mark.parametrize(
    ("name", "patterns", "leaves"),
    [
        ("backbone.encoder.layer.0.query.lora_A.weight", ("base_model.model.*.lora_*",), True),
        ("backbone.encoder.layer.0.query.lora_A.weight", ("*.lora_B.*",), False),
        ("backbone.encoder.layer.0.query.weight", ("base_model.model.*",), False),
        ("backbone.encoder.layer.0.query.weight", ("adapters",), False),
        ("backbone.encoder.layer.117.query.weight", ("blocks",), True),
        ("backbone.embeddings.word_embeddings.weight", tuple(GROUPS), False),
        ("lm_head.weight", tuple(GROUPS), False),
        ("classifier.weight", ("heads",), True),
        ("classifier.weight:scale", ("heads",), True),
        ("a.b.bias:scale", ("biases",), True),
        ("a.lora_A.weight:indices:scale", ("*.lora_A.weight",), True),
        ("Classifier.weight", ("heads",), False),
        ("a.b.weight", ("*",), True),
        ("a.b.weight", ("a.?.w[!x]*",), True),
    ],
)
def test_names_and_patterns(name: str, patterns: tuple[str, ...], leaves: bool) -> None:
    assert may_leave(name, patterns) is leaves


@pytest.mark.parametrize("channel", ["examples", "weight", "steps", "own"])
def test_a_channel_of_counts_is_one_number_and_has_one_of_their_names(channel: str) -> None:
    """No tensor leaves under the name of a count."""
    one = {channel: Channel({"value": torch.zeros(())}, "sum")}
    many = {channel: Channel({"value": torch.zeros(2)}, "sum")}
    two = {channel: Channel({"value": torch.zeros(()), "more": torch.zeros(())}, "sum")}
    assert rule_of(Policy(), one) == (None if channel != "own" else "tensors")
    assert rule_of(Policy(), many) == rule_of(Policy(), two) == "tensors"


def test_scores_of_a_classification_count_labels(zoo: Zoo, tmp_path: Path) -> None:
    there = site(zoo, adapter={"r": 2}, dtype="float32")
    payload = reply_of(evaluation(there.bench), there.requests(clients=("cy",))[0])
    held = policy(tmp_path, "label_histograms: false")
    assert rule_of(Policy(), payload) is None
    for task in ("classification", "token-classification", None):
        assert rule_of(held, payload, task=task) == "label_histograms"
        blank = released(held, payload, task=task)
        assert rule_of(held, blank, task=task) is None
        assert set(metrics_of(blank).values()) == {0.0}
    assert released(held, payload, task="causal-lm") is payload
    assert rule_of(held, payload, task="causal-lm") is None
    # The loss of a training counts nobody.
    loss = trained(there)
    assert released(held, loss, task="classification") is loss
    assert rule_of(held, loss, task="classification") is None


def test_metrics_that_may_not_leave(zoo: Zoo, tmp_path: Path) -> None:
    there = site(zoo, adapter={"r": 2}, dtype="float32")
    rules = policy(tmp_path, "metrics: false")
    for payload in (
        trained(there),
        reply_of(evaluation(there.bench), there.requests(clients=("cy",))[0]),
    ):
        assert released(Policy(), payload) is payload
        assert rule_of(rules, payload, task="causal-lm") == "metrics"
        blank = released(rules, payload)
        assert rule_of(rules, blank) is None
        assert set(metrics_of(blank).values()) == {0.0}
        validate(blank, payload)
        for name in payload.keys() - {"metrics", "examples"}:
            assert blank[name] is payload[name]
    partly = {"metrics": Channel({"sums": torch.zeros(4), "count": torch.ones(())}, "sum")}
    assert rule_of(rules, partly) == "metrics"
    # The statistics of a head have no metrics.
    statistics = {"statistics": Channel({"count": torch.ones(2)}, "sum")}
    assert released(rules, statistics) is statistics


def test_metrics_weighed_as_the_update_is_are_not_left_out_alone() -> None:
    counts = Channel({"count": torch.ones(())}, "sum")
    loss = {"loss": torch.ones(())}
    for payload in (
        {"update": Channel({}, "mean", "examples"), "examples": counts,
         "metrics": Channel(loss, "mean", "examples")},
        {"metrics": Channel(loss, "mean")},
    ):  # fmt: skip
        with pytest.raises(PolicyError) as caught:
            without_metrics(payload)
        assert caught.value.rule == "metrics"


def test_the_loop_needs_to_know_nothing_of_a_site_that_keeps_its_metrics() -> None:
    """Its update counts as before, and the mean loss is that of the others, weighed by rows."""
    bench = make_bench()
    open_ = replace(Scene(bench, fedavg(bench)), per_round=5, evaluates=True)

    def encode(context: Context, payload: Payload, state: Any) -> tuple[Payload, Any]:
        return (without_metrics(payload) if context.client == "cyd" else payload), state

    withhold = Stage("withhold", (), encode)
    algorithm = replace(open_.algorithm, stages=(*open_.algorithm.stages, withhold))
    before, after = (
        next(islice(scene.rounds(), 1, None))
        for scene in (open_, replace(open_, algorithm=algorithm))
    )
    for part in ("adapter", "head"):
        for name, value in before.position.server[part].items():
            assert torch.equal(value, after.position.server[part][name])
    was, now = before.exchanges[0], after.exchanges[0]
    assert not now.failures
    others = {client: ROWS[client] for client in was.clients if client != "cyd"}
    loss = sum(rows * was.clients[client]["loss"] for client, rows in others.items())
    assert now.metrics["loss"] == pytest.approx(loss / sum(others.values()), rel=1e-6)
    assert was.metrics["loss"] != pytest.approx(now.metrics["loss"], rel=1e-3)


def test_the_text_of_an_error_stays_and_its_type_and_line_leave(tmp_path: Path) -> None:
    bench = make_bench(data=Tiny(broken="bob"))
    request = Request(Context(0, "r", 1, 1, ("bob",), 1, "bob"), {})
    (failure,) = answer(fedavg(bench), [request])
    assert isinstance(failure, Failure)
    assert "row 0 of bob cannot be read" in failure.message
    kept = told(Policy(), failure)
    assert (kept.client, kept.kind) == ("bob", "error")
    assert re.fullmatch(
        r"ValueError at tiny\.py:\d+; its text stays at the site, in its own log", kept.message
    )
    assert told(policy(tmp_path, "error_texts: true"), failure) is failure


@pytest.mark.parametrize(
    ("kind", "text", "left"),
    [
        ("diverged", "its training loss became nan", "its training loss became nan"),
        ("policy", "policy rule 'hours': x", "policy rule 'hours': x"),
        ("error", "rows.jsonl:3: not JSON: John Smith", "an error"),
        ("error", "KeyError: 'John Smith (x.py:1) '", "KeyError"),
        ("data", "Smith: no label", "an error"),
    ],
)
def test_only_words_of_our_own_leave(kind: str, text: str, left: str) -> None:
    message = told(Policy(), Failure("a", kind, text)).message
    assert message.partition(";")[0] == left


def test_an_error_of_the_data_does_not_quote_its_rows(tmp_path: Path) -> None:
    open_ = policy(tmp_path, "error_texts: true")
    rows, own = DataError("d/train.jsonl:3: not JSON: John Smith"), RunError("another base")
    other = KeyError("John Smith")
    assert told_error(Policy(), own) is own
    assert told_error(open_, rows) is rows
    assert str(told_error(open_, other)) == "KeyError: 'John Smith'"
    for error in (rows, other):
        kept = told_error(Policy(), error)
        assert "Smith" not in str(kept)
        assert "its text stays at the site" in str(kept)
    assert type(told_error(Policy(), rows)) is DataError


def test_a_client_process_says_of_a_failure_what_its_policy_lets_it() -> None:
    """An ask as it comes in a letter, to a client whose rows cannot be read."""
    bench = make_bench(data=Tiny(broken="bob"))
    algorithm = fedavg(bench)
    state = first_state(bench, algorithm)
    context = Context(0, "r", 1, 1, ("bob",), 1)
    task = Task("train", context, lambda client: algorithm.server.broadcast(state, client), {})
    letter = Letter.of("ask", list(Asking([task], number=0).frames(["bob"], set())))
    left: list[Failure] = []

    def leaving(task: Task, record: Reply | Failure, data: bytes) -> None:
        assert isinstance(record, Failure)
        left.append(record)

    guard = Guard(
        lambda tasks: None, lambda payload: payload, partial(told, Policy()), leaving,
        lambda data: None,
    )  # fmt: skip
    runtime = InProcess(("bob",), {"train": algorithm}, memory_store())
    sent: list[Frame] = []
    held = Held(runtime.algorithms)
    answer_ask(runtime, guard, held, letter.rest, sent.append)
    assert [frame.kind for frame in sent] == [Kind.RECORD, Kind.DONE]
    assert unpack(sent[0].data) == left[0]
    assert left[0].message.startswith("ValueError at tiny.py:")
    assert "row 0" not in left[0].message
