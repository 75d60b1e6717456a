"""DPO against a plain loop: peft, its disabled adapter as the reference, and the formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from atoll.adapters.site import Frame
from atoll.core import Context
from atoll.errors import DataError
from atoll.local.batches import plan_steps
from atoll.models.base import load_base
from atoll.models.locate import locate
from atoll.models.preference import Dpo, preference, reference_of
from tests.support.federation import Site, distance, stir
from tests.support.models import Zoo
from tests.support.plain import load_into
from tests.support.task_sites import preference_rows, site_of

# PEFT 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ROWS = [
    {"prompt": "reef", "chosen": " tide", "rejected": " sand dune"},
    {"prompt": "sun moon star", "chosen": " wind rain", "rejected": " net"},
    {"prompt": "boat", "chosen": " sail", "rejected": " rope"},
    {"prompt": "reef", "chosen": " sand dune", "rejected": " tide"},  # the first, turned round
]
LORA = {"r": 3, "lora_alpha": 6, "target_modules": ("q_proj", "v_proj")}
BETA = 0.3


def task_of(zoo: Zoo, kind: str = "llama", **options: Any) -> tuple[Any, Any]:
    base = load_base(locate(zoo(kind)), dtype="float64")
    dpo = Dpo(BETA, options.pop("label_smoothing", 0.0))
    reference = reference_of(base.model, torch.float64)
    return base, preference(base.tokenizer, reference, dpo, **{"max_length": 64, **options})


def answer(model: Any, tokenizer: Any, prompt: str, text: str) -> Tensor:
    """log π of an answer and its end, token by token."""
    given, said = tokenizer(prompt)["input_ids"], tokenizer(text)["input_ids"]
    ids = [*given, *said, tokenizer.eos_token_id]
    chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    places = range(len(given), len(ids))
    return sum((chances[place - 1, ids[place]] for place in places), torch.zeros(()))


def margin(model: Any, tokenizer: Any, row: dict[str, Any]) -> Tensor:
    """β·((log π − log π_ref) of the chosen answer − the same of the rejected one)."""
    found = []
    for name in ("chosen", "rejected"):
        policy = answer(model, tokenizer, row["prompt"], row[name])
        with torch.no_grad(), model.disable_adapter():
            reference = answer(model, tokenizer, row["prompt"], row[name])
        found.append(policy - reference)
    return BETA * (found[0] - found[1])


def with_peft(zoo: Zoo, kind: str = "llama") -> tuple[Any, Any]:
    plain = AutoModelForCausalLM.from_pretrained(zoo(kind), dtype=torch.float64)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(plain, config, autocast_adapter_dtype=False).eval()
    for _, value in model.named_parameters():
        if value.requires_grad:
            value.data = value.data.double()
    return model, AutoTokenizer.from_pretrained(zoo(kind))


def there_with(zoo: Zoo, **options: Any) -> Site:
    base, task = task_of(zoo, **options)
    train = {"optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": None,
             "per_device_train_batch_size": 2}  # fmt: skip
    there = site_of(base, task, preference_rows(), adapter=LORA, train=train)
    return Site(there.base, there.built, there.bench, stir(there.values, 3), there.clients)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_and_metrics_are_those_of_the_formula(zoo: Zoo, smoothing: float) -> None:
    there = there_with(zoo, label_smoothing=smoothing)
    task, (model, tokenizer) = there.bench.objective, with_peft(zoo)
    load_into(model, there.values)
    batch = task.collate([*task.encode(ROWS), None])
    values = {name: value.unsqueeze(0) for name, value in there.values.items()}
    logits = there.bench.model.forward(values, batch.inputs, Frame(1))
    found = task.losses(logits, batch, {})
    margins = torch.stack([margin(model, tokenizer, row) for row in ROWS]).detach()
    expected = -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)
    torch.testing.assert_close(found[:-1], expected)
    assert found[-1] == 0
    scores = task.metric.settle(task.metric.evidence(logits, batch)[:-1])
    numbers = task.metric.finals(task.metric.total(scores).tolist(), len(ROWS))
    right = (margins > 0).double()
    assert 0 < right.mean() < 1
    assert numbers == pytest.approx({
        "reward_accuracy": float(right.mean()), "reward_margin": float(margins.mean()),
        "loss": float(expected.mean()),
    })  # fmt: skip


def test_training_is_a_plain_loop_over_peft(zoo: Zoo) -> None:
    there = there_with(zoo)
    trained, failed = there.train(group_size=1)
    assert not failed
    for client in ("ada", "bob"):
        model, tokenizer = with_peft(zoo)
        names = load_into(model, there.values)
        moving = [value for value in model.parameters() if value.requires_grad]
        rows = preference_rows()[client]
        examples = there.bench.examples(client, "train")
        context = Context(5, "run", 1, 1, there.clients, len(there.clients), client)
        lengths = [len(example) for example in examples]
        for step in plan_steps(lengths, context, batch_size=2, epochs=1):
            losses = [-logsigmoid(margin(model, tokenizer, rows[row])) for row in step]
            gradients = torch.autograd.grad(torch.stack(losses).mean(), moving)
            for value, gradient in zip(moving, gradients, strict=True):
                value.data -= 0.1 * gradient
        end = dict(zip(names, (value.detach() for value in moving), strict=True))
        assert distance(trained[client].end, end) < 1e-9
        assert distance(trained[client].end, there.values) > 1e-3


def test_stacked_is_sequential(zoo: Zoo) -> None:
    base, task = task_of(zoo, "gpt2")
    train = {"optimizer": "sgd", "learning_rate": 0.05, "gradient_accumulation_steps": 2}
    adapter = {"r": 3, "lora_dropout": 0.2}
    there = site_of(base, task, preference_rows(), adapter=adapter, train=train)
    assert there.built.alone is None
    stacked, _ = there.train(group_size=5)
    alone, _ = there.train(group_size=1)
    for client, one in alone.items():
        assert distance(stacked[client].end, one.end) < 1e-9
        assert stacked[client].loss == pytest.approx(one.loss)


def test_padding_has_no_gradient(zoo: Zoo) -> None:
    _, task = task_of(zoo)
    examples = task.encode(ROWS[:1])
    batch = task.collate([examples[0], None])
    shape = (*batch.inputs["input_ids"].shape, 257)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    task.losses(logits, batch, {}).sum().backward()
    assert logits.grad is not None
    assert logits.grad[:2].any()
    assert not logits.grad[2:].any()
    assert batch.views == 2
    assert batch.target.shape[:2] == (2, 2)


def test_an_adapter_that_does_nothing_is_a_tie(zoo: Zoo) -> None:
    base, task = task_of(zoo, batch_size=1)
    examples = task.encode(ROWS)  # each alone: other sums than in one batch
    batch = task.collate(examples)
    evidence = task.metric.evidence(base.model(**batch.inputs).logits, batch)
    assert evidence[:, 0].tolist() == [0.5] * len(ROWS)
    assert evidence[:, 2].tolist() == pytest.approx([math.log(2)] * len(ROWS))


def test_the_reference_does_not_move_with_what_trains(zoo: Zoo) -> None:
    """Of a model that trains whole in float32 over bfloat16 weights too."""
    base = load_base(locate(zoo("gpt2")), dtype="bfloat16")
    task = preference(base.tokenizer, reference_of(base.model, torch.float32), Dpo(), max_length=64)
    rows = {"ada": ROWS, "bob": ROWS[:1]}
    train = {"optimizer": "sgd", "learning_rate": 0.5}
    there = site_of(base, task, rows, adapter={"method": "full"}, train=train)
    before = [example.known for example in task.encode(ROWS)]
    batch = task.collate(task.encode(ROWS))
    values = {name: value.unsqueeze(0) for name, value in there.values.items()}
    logits = there.bench.model.forward(values, batch.inputs, Frame(1))
    assert task.metric.evidence(logits, batch)[:, 0].tolist() == [0.5] * len(ROWS)
    trained, _ = there.train(group_size=1)
    assert distance(trained["ada"].end, there.values) > 0
    after = [example.known for example in task.encode(ROWS)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True) if a is not None)


def test_chats_are_read_under_the_template(zoo: Zoo) -> None:
    """As TRL reads them: prompt and both answers as messages."""
    base, task = task_of(zoo)
    row = {
        "prompt": [{"role": "user", "content": "reef"}],
        "chosen": [{"role": "assistant", "content": "tide"}],
        "rejected": [{"role": "assistant", "content": "sand"}],
    }
    (example,) = task.encode([row])
    text = base.tokenizer.apply_chat_template(row["prompt"] + row["chosen"], tokenize=False)
    assert base.tokenizer.decode(example.ids) == text
    answered = example.ids[example.target != -100]
    assert base.tokenizer.decode(answered) == "tide<|end|>"
    assert example.pair is not None
    rejected = example.pair.ids[example.pair.target != -100]
    assert base.tokenizer.decode(rejected) == "sand<|end|>"
    with pytest.raises(DataError, match="as messages or both as text"):
        task.encode([{**row, "prompt": "reef"}])


def test_rows_without_an_answer_are_left_out_and_long_ones_cut(zoo: Zoo) -> None:
    _, task = task_of(zoo, max_length=8)
    long = {"prompt": "reef tide coral", "chosen": " a", "rejected": " b"}
    half = {"prompt": "reef", "chosen": " sun moon star", "rejected": " b"}
    found = task.encode([long, half, ROWS[0]])
    assert [len(example) for example in found] == [8, 8]
    assert [example.over for example in found] == [(19,), (15,)]
    assert all(example.known is not None and example.known.shape == (2,) for example in found)
    assert task.encode([]) == []
    _, strict = task_of(zoo, max_length=8, truncation=False)
    with pytest.raises(DataError, match=r"more than data\.max_length"):
        strict.encode([half])
