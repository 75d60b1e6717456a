"""Answers are the model's own: greedy ones as transformers gives them, drawn ones by address."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from atoll import rng
from atoll.errors import DataError, ModelError
from atoll.trained.chat import Answer, Manner, pieces
from atoll.trained.conversation import (
    Conversation,
    begun,
    check_talks,
    longest_row,
    prompt_ids,
    shortened,
)
from atoll.trained.load_run import TrainedRun
from atoll.trained.predict import sampled
from tests.support.finished import finish, opened
from tests.support.models import Zoo, letters
from tests.support.scenes import write_clients

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # transformers 5.24 renames the argument for some models, and takes the old name for all.
    pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning"),
]

USER, ANSWER = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "qqq"}
ROWS: dict[str, dict[str, object]] = {
    "chat": {"messages": [USER, ANSWER]},
    "instructions": {"instruction": "ask", "output": "qqq"},
    "prompts": {"prompt": "ask", "completion": "qqq"},
    "texts": {"text": "ask qqq"},
}


@pytest.fixture(scope="module")
def runs(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedRun]:
    """A LLaMA that was trained on each kind of rows."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for name, row in ROWS.items():
        write_clients(root / name / "data", {"ada": [row] * 4}, test=1)  # type: ignore[dict-item]
        data = {"max_length": 60}
        found[name] = opened(finish(root / name, zoo, "llama", data=data))
    return found


def answered(run: TrainedRun, ids: list[int], *, adapted: bool, **manner: float) -> str:
    answer = Answer(run, ids, Manner(**{"max_new_tokens": 24, **manner}), turn=1, adapted=adapted)  # type: ignore[arg-type]
    assert "".join(answer) == answer.text
    return answer.text


def test_greedy_answers_are_those_of_transformers(runs: dict[str, TrainedRun]) -> None:
    run = runs["prompts"]
    tokenizer = AutoTokenizer.from_pretrained(run.setup.base.source.path)
    ids = prompt_ids(run, begun(run, system=None, chat_template=False), "reef")
    assert ids == tokenizer("reef")["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(run.setup.base.source.path)
    expected = {}
    for adapted in (False, True):
        model = PeftModel.from_pretrained(plain, str(run.path / "adapter")) if adapted else plain
        given = torch.tensor([ids])
        mask = torch.ones_like(given)
        new = model.eval().generate(  # type: ignore[operator]
            input_ids=given, attention_mask=mask, do_sample=False, max_new_tokens=24,
            pad_token_id=256,
        )  # fmt: skip
        expected[adapted] = tokenizer.decode(new[0, len(ids) :], skip_special_tokens=True)
        assert answered(run, ids, adapted=adapted) == expected[adapted]
    assert expected[True] != expected[False]
    # The one does not disturb the other.
    assert answered(run, ids, adapted=True) == expected[True]


def test_draws_have_an_address(runs: dict[str, TrainedRun]) -> None:
    run = runs["prompts"]
    ids = prompt_ids(run, Conversation(templated=False), "reef")

    def drawn(seed: int, turn: int, temperature: float = 1.5) -> str:
        manner = Manner(16, temperature, seed)
        return "".join(Answer(run, ids, manner, turn=turn, adapted=True))

    torch.manual_seed(0)
    first = drawn(0, 1)
    torch.manual_seed(1)
    assert drawn(0, 1) == first
    assert len({first, drawn(0, 2), drawn(1, 1), drawn(1, 2)}) == 4
    # As the temperature falls, the draws become the most probable tokens.
    assert drawn(0, 1, temperature=1e-6) == answered(run, ids, adapted=True, max_new_tokens=16)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    choose = sampled(temperature, rng.generator(3, "test"))
    counts = torch.bincount(torch.tensor([choose(logits) for _ in range(4000)]), minlength=4)
    expected = torch.exp(logits / temperature) / torch.exp(logits / temperature).sum()
    # Four standard deviations of a share of 4,000 draws.
    assert ((counts / 4000 - expected).abs() < 4 * (expected / 4000).sqrt()).all()


def test_an_answer_knows_whether_it_was_cut(runs: dict[str, TrainedRun]) -> None:
    run = runs["prompts"]
    ids = prompt_ids(run, Conversation(templated=False), "ask")
    whole = Answer(run, ids, Manner(max_new_tokens=60), turn=1, adapted=True)
    assert not whole.complete
    text = "".join(whole)
    # It has learnt to say q, and to end.
    assert text == "q" * len(text)
    assert 2 < len(text) < 60
    assert whole.complete
    cut = Answer(run, ids, Manner(max_new_tokens=2), turn=1, adapted=True)
    assert "".join(cut) == "qq"
    assert not cut.complete
    stopped = Answer(run, ids, Manner(max_new_tokens=60), turn=1, adapted=True)
    next(iter(stopped))
    assert stopped.text == "q"
    assert not stopped.complete


TALK = Conversation(templated=True).then("one", "two")
TEMPLATED = "<|user|>one<|assistant|>two<|end|><|user|>ask<|assistant|>"
ALPACA = "### Instruction:\none\n\n### Response:\ntwo\n\n### Instruction:\nask\n\n### Response:\n"
PROMPTS = {"chat": TEMPLATED, "instructions": ALPACA, "prompts": "onetwo\n\nask",
           "texts": "onetwo\nask"}  # fmt: skip


@pytest.mark.parametrize("name", PROMPTS)
def test_a_conversation_is_asked_as_the_rows_were(name: str, runs: dict[str, TrainedRun]) -> None:
    run = runs[name]
    begin = begun(run, system=None, chat_template=False)
    assert begin.templated == (name == "chat")
    ids = prompt_ids(run, begin.then("one", "two"), "ask")
    assert run.setup.base.tokenizer.decode(ids) == PROMPTS[name]
    # Its template can be had for any of them.
    asked = begun(run, system="be kind", chat_template=True).then("one", "two")
    text = run.setup.base.tokenizer.decode(prompt_ids(run, asked, "ask"))
    assert text == f"<|system|>be kind{TEMPLATED}"


def test_only_the_first_message_begins_a_text(runs: dict[str, TrainedRun]) -> None:
    """A tokenizer that begins every text with a token of its own begins a conversation once."""
    from dataclasses import replace

    from tokenizers import processors

    run = runs["prompts"]
    tokenizer = letters()
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    base = replace(run.setup.base, tokenizer=tokenizer)
    other = replace(run, setup=replace(run.setup, base=base))
    ids = prompt_ids(other, Conversation(templated=False).then("a", "b").then("c", "d"), "e")
    assert (ids[0], ids.count(begin)) == (begin, 1)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab\n\ncd\n\ne"


def test_a_system_message_needs_a_place(runs: dict[str, TrainedRun]) -> None:
    with pytest.raises(DataError, match="has no place for a system message"):
        begun(runs["prompts"], system="be kind", chat_template=False)
    plain = Conversation(templated=False)
    assert plain.under("") == plain
    assert TALK.under("be kind").under(None) == TALK


def test_a_template_that_is_not_there(zoo: Zoo, tmp_path: Path) -> None:
    run = opened(finish(tmp_path, zoo, "gpt2"))
    with pytest.raises(DataError, match="has no chat template; leave out --chat-template"):
        begun(run, system=None, chat_template=True)
    check_talks(run)


def test_a_classifier_does_not_talk(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"trained for classification .*; `atoll predict .*/run -"):
        check_talks(opened(finish(tmp_path, zoo, "bert")))


def test_a_long_conversation(runs: dict[str, TrainedRun]) -> None:
    run = runs["prompts"]
    assert longest_row(run) == 128
    talk = Conversation(templated=False)
    for number in range(6):
        talk = talk.then(str(number) * 10, "a" * 10)
    assert len(prompt_ids(run, talk, "b" * 20)) == 6 * 22 + 20
    with pytest.raises(DataError, match=r"152 tokens long.* at most 128; /reset .* --drop-oldest"):
        shortened(run, talk, "b" * 20, room=10, drop_oldest=False)
    kept, ids = shortened(run, talk, "b" * 20, room=10, drop_oldest=True)
    assert [turn.asked[0] for turn in kept.turns] == ["2", "3", "4", "5"]
    assert ids == prompt_ids(run, kept, "b" * 20)
    # However long an answer may be, half of what the model reads is for what was said.
    kept, _ = shortened(run, talk, "b" * 20, room=1000, drop_oldest=True)
    assert [turn.asked[0] for turn in kept.turns] == ["4", "5"]
    with pytest.raises(DataError, match="this message is 128 tokens long"):
        shortened(run, talk, "b" * 128, room=10, drop_oldest=True)
    # What leaves room for one token is answered.
    _, ids = shortened(run, Conversation(templated=False), "b" * 127, room=10, drop_oldest=False)
    assert len(list(Answer(run, ids, Manner(), turn=1, adapted=True))) <= 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 256), max_size=40))
def test_pieces_are_the_decoded_whole(tokens: list[int]) -> None:
    """Bytes at random, so that characters of several tokens and broken ones are met."""
    tokenizer = letters()
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens, skip_special_tokens=True)


def test_a_character_is_said_once_it_is_whole() -> None:
    tokenizer = letters()
    tokens = tokenizer("sé€")["input_ids"]
    assert len(tokens) == 6
    assert [piece for piece in pieces(tokenizer, tokens) if piece] == ["s", "é", "€"]
