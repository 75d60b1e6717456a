"""What a language model is asked, as it was taught; and chats that are given in two parts."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from atoll.errors import DataError
from atoll.models.texts import example_of, prompt_of
from tests.support.models import letters

USER, ANSWER = {"role": "user", "content": "reef?"}, {"role": "assistant", "content": "tide"}
ROWS: dict[str, dict[str, Any]] = {
    "prompt/completion": {"prompt": "ab ", "completion": "cd"},
    "instruction/output": {"instruction": "Count.", "output": "1"},
    "instruction/input/output": {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    "messages": {"messages": [USER, ANSWER, USER, ANSWER]},
    "prompt/completion as messages": {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]},
    "nulls beside a prompt": {"messages": None, "text": "x", "prompt": "a", "completion": "b"},
    "nulls beside a text": {"prompt": None, "completion": "x", "instruction": None, "text": "ab"},
}


@pytest.mark.parametrize("name", ROWS)
def test_the_prompt_is_what_training_reads_before_the_last_answer(name: str) -> None:
    tokenizer, row = letters(chat=True), ROWS[name]
    example = example_of(tokenizer, row, completion_only=True)
    prompt = prompt_of(tokenizer, row)
    assert example.ids[: len(prompt)].tolist() == prompt
    answer = example.ids[len(prompt) :].tolist()
    if row.get("text") != "ab":
        assert example.target[len(prompt) :].tolist() == answer
        assert (example.target[: len(prompt)] == -100).any()
    assert answer[-1] == tokenizer.eos_token_id


def test_only_what_is_given_is_read() -> None:
    tokenizer = letters(chat=True)
    assert prompt_of(tokenizer, {"prompt": "ab"}) == tokenizer("ab")["input_ids"]
    alpaca = prompt_of(tokenizer, {"instruction": "Add.", "input": "1 and 2"})
    assert tokenizer.decode(alpaca) == (
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
    )
    asked = prompt_of(tokenizer, {"messages": [USER, ANSWER]})
    assert tokenizer.decode(asked) == "<|user|>reef?<|assistant|>"


@pytest.mark.parametrize("messages", [[], [ANSWER], [ANSWER, ANSWER]])
def test_a_chat_without_a_turn_to_answer(messages: list[Any]) -> None:
    with pytest.raises(DataError, match="no turn to answer; give at least one of a user"):
        prompt_of(letters(chat=True), {"messages": messages})


def test_a_completion_of_messages_is_predicted_whole() -> None:
    tokenizer = letters(chat=True)
    row = {"prompt": [USER], "completion": [ANSWER, USER, ANSWER]}
    example = example_of(tokenizer, row, completion_only=True)
    assert tokenizer.decode([t for t in example.target.tolist() if t != -100]) == (
        "tide<|end|><|user|>reef?<|assistant|>tide<|end|>"
    )
    whole = example_of(tokenizer, row, completion_only=False)
    assert whole.target.tolist() == whole.ids.tolist()


def test_half_a_dialogue_is_refused() -> None:
    with pytest.raises(DataError, match="write both as messages or both as text"):
        example_of(letters(chat=True), {"prompt": [USER], "completion": "x"}, completion_only=True)


def test_a_chat_that_the_template_does_not_take() -> None:
    tokenizer = letters()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="does not take a chat of user, user: roles must alternate"):
        example_of(tokenizer, {"messages": [USER, USER]}, completion_only=True)


@pytest.mark.parametrize("name", ["prompt/completion", "instruction/output", "messages", "text"])
def test_a_row_that_will_be_cut_brings_no_word_from_transformers(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its loggers hand nothing up, and so nothing to caplog, unless they are told to.
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    row = {"text": "ab" * 100} if name == "text" else dict(ROWS[name])
    if name == "messages":
        row["messages"] = [USER, {**ANSWER, "content": "ab" * 100}]
    elif name != "text":
        row[name.split("/")[1]] = "ab" * 100
    assert len(example_of(letters(chat=True), row, completion_only=True).ids) > 128
    assert not caplog.records
