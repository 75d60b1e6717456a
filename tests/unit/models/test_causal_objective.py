"""Which tokens are predicted, losses as Hugging Face's, and packing that changes nothing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from tokenizers import processors
from torch import Tensor
from transformers import AutoModelForCausalLM

from atoll.adapters.site import Frame
from atoll.errors import DataError
from atoll.models.causal import causal, pack
from atoll.models.objective import Example
from tests.support.federation import distance, site, stir, text_rows
from tests.support.models import Zoo, letters

END = 256
CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "reef?"},
    {"role": "assistant", "content": "tide"},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "coral"},
]


def _text(ids: Any) -> str:
    return str(letters().decode([int(i) for i in ids]))


def _predicted(example: Example) -> str:
    """What the loss sees, with _ for every token that it does not."""
    return "".join(_text([token]) if token != -100 else "_" for token in example.target.tolist())


def _encode(row: dict[str, Any], *, tokenizer: Any = None, **options: Any) -> Example:
    objective = causal(tokenizer or letters(chat=True), **{"max_length": 200, **options})
    return objective.encode([row])[0]


def test_only_the_completion_is_predicted() -> None:
    example = _encode({"prompt": "ab ", "completion": "cd"})
    assert _text(example.ids) == "ab cd<|end|>"
    assert _predicted(example) == "___cd<|end|>"
    everything = _encode({"prompt": "ab ", "completion": "cd"}, completion_only=False)
    assert _predicted(everything) == "ab cd<|end|>"


def test_text_is_predicted_whole_and_ends() -> None:
    example = _encode({"text": "reef"})
    assert _text(example.ids) == _predicted(example) == "reef<|end|>"


def test_special_tokens_that_a_tokenizer_adds_by_itself() -> None:
    tokenizer = letters()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", END)]
    )
    assert tokenizer("a")["input_ids"][-1] == END
    example = _encode({"prompt": "ab", "completion": "cd"}, tokenizer=tokenizer)
    assert _text(example.ids) == "abcd<|end|>"
    assert _predicted(example) == "__cd<|end|>"
    assert _text(_encode({"text": "reef"}, tokenizer=tokenizer).ids) == "reef<|end|>"


def test_every_assistant_turn_of_a_chat_is_predicted() -> None:
    example = _encode({"messages": CHAT})
    assert _text(example.ids) == (
        "<|system|>be kind<|user|>reef?<|assistant|>tide<|end|>"
        "<|user|>and?<|assistant|>coral<|end|>"
    )
    before, between = "<|system|>be kind<|user|>reef?<|assistant|>", "<|user|>and?<|assistant|>"
    assert _predicted(example) == (
        "_" * len(before) + "tide<|end|>" + "_" * len(between) + "coral<|end|>"
    )
    everything = _encode({"messages": CHAT}, completion_only=False)
    assert _predicted(everything) == _text(example.ids)


def test_a_chat_that_starts_with_the_assistant() -> None:
    example = _encode({"messages": [CHAT[2], CHAT[3], CHAT[4]]})
    hidden = "_" * len("<|user|>and?<|assistant|>")
    assert _predicted(example) == f"<|assistant|>tide<|end|>{hidden}coral<|end|>"


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    """Some templates drop what earlier answers held; then turns cannot be told apart."""
    tokenizer = letters(chat=True)
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>"
        "{% if message['role'] != 'assistant' or loop.last %}{{ message['content'] }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    with pytest.raises(DataError, match="chat template"):
        _encode({"messages": CHAT}, tokenizer=tokenizer)
    last = _encode({"messages": CHAT[:3]}, tokenizer=tokenizer)
    assert _predicted(last).strip("_") == "tide"


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(DataError, match="has no chat template; use prompt/completion rows"):
        _encode({"messages": CHAT}, tokenizer=letters())


def test_truncation() -> None:
    example = _encode({"prompt": "abcd", "completion": "efgh"}, max_length=6)
    assert _text(example.ids) == "abcdef"
    assert _predicted(example) == "____ef"


@pytest.mark.parametrize("packing", [False, True])
def test_rows_with_nothing_to_predict_are_left_out(packing: bool) -> None:
    objective = causal(letters(chat=True), max_length=12, packing=packing)
    rows = [
        {"prompt": "a prompt that fills the row", "completion": "ef"},
        {"text": ""},
        {"messages": [{"role": "user", "content": "a"}]},
        {"text": "reef"},
        {"prompt": "ab", "completion": "c"},
    ]
    found = objective.encode(rows)
    assert sum(example.rows for example in found) == 2
    assert all(objective.count(example) for example in found)
    assert objective.encode(rows[:3]) == []


def test_count_is_what_the_loss_counts() -> None:
    objective = causal(letters(), max_length=50)
    with_prompt, without = objective.encode(
        [{"prompt": "ab", "completion": "cd"}, {"text": "abcd"}]
    )
    assert objective.count(with_prompt) == 3
    assert objective.count(without) == 4, "the first token is predicted from nothing"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_loss_of_one_row_is_hugging_faces(zoo: Zoo, kind: str) -> None:
    there = site(zoo, kind, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(zoo(kind)).eval()
    for example in there.bench.examples("ada", "train"):
        batch = there.bench.objective.collate([example, None])
        logits = there.base.model(**batch.inputs).logits
        losses = there.bench.objective.losses(logits, batch, {})
        ids = torch.tensor(example.ids.tolist()).unsqueeze(0)
        labels = torch.tensor(example.target.tolist()).unsqueeze(0)
        expected = model(input_ids=ids, labels=labels).loss.item()
        count = there.bench.objective.count(example)
        assert losses[0].item() / count == pytest.approx(expected, rel=1e-5)
        assert losses[1].item() == 0.0
        evidence = there.bench.objective.metric.evidence(logits, batch)
        assert evidence[0, 0].item() == losses[0].item()
        assert evidence[1].tolist() == [0.0] * 4


def _losses_and_gradients(
    zoo: Zoo, kind: str, packing: bool
) -> tuple[float, dict[str, Tensor], int, list[Example]]:
    there = site(zoo, kind, objective={"packing": packing}, rows=text_rows({"ada": 9}),
                 max_length=64)  # fmt: skip
    values = {n: v.unsqueeze(0).requires_grad_() for n, v in stir(there.values, 1).items()}
    examples = list(there.bench.examples("ada", "train"))
    # A padding row and ragged lengths, as in a stack.
    batch = there.bench.objective.collate([*examples, None])
    logits = there.built.model.forward(values, batch.inputs, Frame(1))
    losses = there.bench.objective.losses(logits, batch, {})
    assert losses[-1].item() == 0.0
    found = torch.autograd.grad(losses.sum(), list(values.values()))
    count = sum(map(there.bench.objective.count, examples))
    return losses.sum().item(), dict(zip(values, found, strict=True)), count, examples


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_packing_changes_no_loss_and_no_gradient(zoo: Zoo, kind: str) -> None:
    loss, gradients, count, rows = _losses_and_gradients(zoo, kind, False)
    packed_loss, packed_gradients, packed_count, packed = _losses_and_gradients(zoo, kind, True)
    assert len(packed) < len(rows)
    assert packed_count == count
    assert packed_loss == pytest.approx(loss, rel=1e-10)
    assert distance(packed_gradients, gradients) < 1e-10


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_packed_clients_stack(zoo: Zoo, kind: str) -> None:
    there = site(zoo, kind, adapter={"lora_dropout": 0.1}, objective={"packing": True},
                 train={"num_train_epochs": 2})  # fmt: skip
    stacked, failed = there.train(group_size=5)
    alone, _ = there.train(group_size=1)
    assert not failed
    for client, one in alone.items():
        assert distance(stacked[client].end, one.end) < 1e-10


rows = st.lists(
    st.lists(st.integers(0, 255), min_size=1, max_size=20), min_size=1, max_size=40
)  # fmt: skip


@hypothesis(max_examples=80, deadline=None)
@given(rows, st.integers(20, 45))
def test_packing_keeps_every_row_whole(found: list[list[int]], room: int) -> None:
    examples = [Example(np.array(ids), np.array(ids)) for ids in found]
    packed = pack(examples, room)
    seen: list[list[int]] = []
    for joined in packed:
        assert 0 < len(joined) <= room
        assert joined.positions is not None
        starts = [*np.flatnonzero(joined.positions == 0).tolist(), len(joined)]
        for start, stop in itertools.pairwise(starts):
            seen.append(joined.ids[start:stop].tolist())
            assert joined.positions[start:stop].tolist() == list(range(stop - start))
            assert joined.target[start] == -100
            assert joined.target[start + 1 : stop].tolist() == seen[-1][1:]
    assert sorted(seen) == sorted(found)
    # Two sequences that would fit together are never left apart.
    lengths = sorted(map(len, packed))
    assert len(lengths) == 1 or lengths[0] + lengths[1] > room


def test_a_row_whose_completion_was_cut_away_changes_no_training(zoo: Zoo) -> None:
    kept, gone = {"text": "reef tide"}, {"prompt": "a" * 90, "completion": "b"}
    there = site(zoo, "gpt2", rows={"ada": [kept], "bob": [kept, gone], "cy": [gone]},
                 max_length=20, train={"optimizer": "sgd"})  # fmt: skip
    trained, failures = there.train(group_size=2)
    assert [failure.message for failure in failures.values()] == ["it has no rows to train on"]
    assert trained["bob"].loss == trained["ada"].loss > 0
    assert trained["bob"].examples == 1
    assert distance(trained["bob"].end, trained["ada"].end) == 0.0


def test_perplexity() -> None:
    metric = causal(letters(), max_length=9).metric
    assert metric.finals([6.0, 2, 0, 1], 3.0)["perplexity"] == pytest.approx(math.exp(2.0))
    assert metric.finals([3e6, 0, 0, 1], 3.0)["perplexity"] == pytest.approx(math.exp(700.0))
    assert metric.name == "perplexity"
    assert not metric.higher_is_better


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_exact_match_is_what_greedy_decoding_writes(zoo: Zoo, kind: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(zoo(kind)).eval()
    objective = site(zoo, kind, dtype="float32").bench.objective
    start = torch.tensor([[5, 9, 7]])
    with torch.no_grad():
        ids = model.generate(start, max_new_tokens=4, do_sample=False, eos_token_id=None)[0]
    other = ids.clone()
    other[-1] = (other[-1] + 1) % 10
    for written, right in ((ids, 4), (other, 3)):
        target = written.numpy().copy()
        target[:3] = -100
        batch = objective.collate([Example(written.numpy(), target), None])
        with torch.no_grad():
            logits = model(**batch.inputs).logits
        sums = objective.metric.total(objective.metric.evidence(logits, batch)).tolist()
        found = objective.metric.finals(sums, 4.0)
        assert found["token_accuracy"] == right / 4
        assert found["exact_match"] == float(right == 4)


def test_alpaca_rows_predict_the_output_after_the_published_prompt(zoo: Zoo) -> None:
    objective = causal(zoo.base("llama").tokenizer, max_length=512)
    row = {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"}
    prompt = "### Instruction:\nAdd the numbers.\n\n### Input:\n1 and 2\n\n### Response:\n"
    (found,) = objective.encode([row])
    (expected,) = objective.encode([{"prompt": prompt, "completion": "3"}])
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.target.tolist() == expected.target.tolist()
    bare = {"instruction": "Count.", "input": "", "output": "1"}
    (short,) = objective.encode([bare])
    (plain,) = objective.encode(
        [{"prompt": "### Instruction:\nCount.\n\n### Response:\n", "completion": "1"}]
    )
    assert short.ids.tolist() == plain.ids.tolist()
