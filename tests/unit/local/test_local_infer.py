"""Evaluation, features and scores against plain loops over single rows."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from atoll.core import Channel, Context, metrics_of
from atoll.local.evaluation import evaluation, score_of
from atoll.local.infer import Score, evaluate, features, forward_batches
from atoll.models.pooling import last_token
from tests.support.federation import Site, labelled_rows, site, stir, text_rows
from tests.support.models import Zoo

ROWS = {"ada": 9, "bob": 4}


def _site(zoo: Zoo, kind: str = "bert", **options: object) -> Site:
    rows = text_rows(ROWS) if kind in ("gpt2", "llama") else labelled_rows(ROWS)
    return site(zoo, kind, train={"per_device_eval_batch_size": 4}, rows=rows, **options)  # type: ignore[arg-type]


def _lora_backbone(there: Site, values: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The same model with W + s·B·A written into its weights (s = 16 / 8)."""
    model = there.base.backbone
    there.built.model.close()
    prefix = there.base.prefix
    for name, a in values.items():
        if name.endswith("lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            change = 2.0 * values[f"{module}.lora_B.weight"] @ a
            layer = model.get_submodule(module.removeprefix(prefix))
            layer.weight.data += change.T if isinstance(layer, Conv1D) else change
    return model


def test_features_are_the_pooled_vectors_in_the_order_of_the_rows(zoo: Zoo) -> None:
    there = _site(zoo)
    values = stir(there.values, 1)
    examples = there.bench.examples("ada", "train")
    found = features(there.bench, values, examples)
    backbone = _lora_backbone(there, values)
    for row, example in enumerate(examples):
        ids = torch.tensor(example.ids.tolist()).unsqueeze(0)
        expected = backbone(input_ids=ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(found[row].double(), expected, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32
    assert not found.is_inference()
    assert len({len(example) for example in examples}) > 3, "lengths are all the same"


def test_accuracy_against_a_plain_loop(zoo: Zoo) -> None:
    there = _site(zoo)
    values = stir(there.values, 2, std=0.3)
    examples = there.bench.examples("ada", "train")
    score = evaluate(there.bench, values, examples)
    backbone = _lora_backbone(there, values)
    right = 0
    for example in examples:
        hidden = backbone(input_ids=torch.tensor(example.ids.tolist()).unsqueeze(0))
        pooled = hidden.last_hidden_state[0].mean(0)
        logits = values["classifier.weight"] @ pooled + values["classifier.bias"]
        right += int(logits.argmax()) == int(example.target[0])
    assert (score.sums[0], score.count) == (float(right), 9.0)
    assert 0 < right < 9, "the case is degenerate"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_perplexity_is_hugging_faces_loss(zoo: Zoo, kind: str) -> None:
    there = _site(zoo, kind)
    values = stir(there.values, 3)
    examples = there.bench.examples("ada", "train")
    score = evaluate(there.bench, values, examples)
    model = _lora_backbone(there, values)
    total, count = 0.0, 0
    for example in examples:
        ids = torch.tensor(example.ids.tolist()).unsqueeze(0)
        labels = torch.tensor(example.target.tolist()).unsqueeze(0)
        predicted = int((labels[:, 1:] != -100).sum())
        total += model(input_ids=ids, labels=labels).loss.item() * predicted
        count += predicted
    assert score.count == count
    assert score.sums[0] / score.count == pytest.approx(total / count, rel=1e-6)
    perplexity = there.bench.objective.metric.finals(score.sums, score.count)["perplexity"]
    assert perplexity == pytest.approx(math.exp(total / count), rel=1e-5)


def test_dropout_is_off(zoo: Zoo) -> None:
    there = _site(zoo, adapter={"lora_dropout": 0.5})
    values = stir(there.values, 1)
    examples = there.bench.examples("ada", "train")
    first, again = (features(there.bench, values, examples) for _ in range(2))
    assert torch.equal(first, again)


def test_scores_add_up_and_nothing_adds_nothing() -> None:
    score = Score((3.0, 1.0), 4.0)
    assert score + Score((1.0, 1.0), 2.0) == Score((4.0, 2.0), 6.0)
    assert score + Score() == Score() + score == score


def test_no_examples_score_nothing(zoo: Zoo) -> None:
    there = _site(zoo)
    assert evaluate(there.bench, there.values, []) == Score()


def test_inference_mode_does_not_leak_to_the_caller(zoo: Zoo) -> None:
    there = _site(zoo)
    batches = forward_batches(there.bench, there.values, there.bench.examples("ada", "train"))
    next(batches)
    assert not torch.is_inference_mode_enabled()
    batches.close()


def test_batches_hold_rows_of_similar_length_and_all_of_them(zoo: Zoo) -> None:
    there = _site(zoo)
    examples = there.bench.examples("ada", "train")
    seen: list[int] = []
    for rows, batch, logits in forward_batches(there.bench, there.values, examples):
        assert len(rows) <= 4
        assert logits.shape == (len(rows), 4)
        assert batch.inputs["input_ids"].shape[1] == max(len(examples[row]) for row in rows)
        seen += rows
    assert sorted(seen) == list(range(9))
    assert [len(examples[row]) for row in seen] == sorted(map(len, examples))


def test_evaluation_answers_with_sums(zoo: Zoo) -> None:
    there = _site(zoo)
    algorithm = evaluation(there.bench)
    assert algorithm.kind == "evaluation"
    replies = {reply.client: reply for reply in algorithm.client.work(there.requests())}
    for client, reply in replies.items():
        expected = evaluate(there.bench, there.values, there.bench.examples(client, "test"))
        tree = reply.payload["metrics"].tree
        assert reply.payload["metrics"].reduce == "sum"
        assert tuple(tree["sums"].tolist()) == expected.sums
        assert float(tree["count"]) == ROWS[client]
        assert score_of(metrics_of(reply.payload)) == expected
    state = {"adapter": dict(there.values)}
    context = Context(0, "run", 1, 1, ("ada",), 2)
    total = {"metrics": Channel({"sums": torch.ones(13), "count": torch.tensor(2.0)}, "sum")}
    assert algorithm.server.apply(context, state, total) is state


def test_a_decoders_head_reads_the_last_token(zoo: Zoo) -> None:
    hidden = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert torch.equal(last_token(hidden, mask), torch.stack([hidden[0, 1], hidden[1, 3]]))
