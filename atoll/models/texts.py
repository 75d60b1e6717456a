"""Rows of a language model as token ids: what is given, and what is to be predicted.

Training and prediction build a prompt here, so that a model is asked as it was taught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atoll.errors import DataError
from atoll.models.collate import IGNORED
from atoll.models.objective import Example

__all__ = ["example_of", "prompt_of"]

Row = Mapping[str, Any]
Message = Mapping[str, Any]

# Rows that are longer than the model reads are cut later, and counted: transformers need not warn.
_QUIET = {"verbose": False}


def example_of(tokenizer: Any, row: Row, *, completion_only: bool) -> Example:
    """A row of messages, prompt and completion, instruction and output, or text."""
    if row.get("messages") is not None:
        return _chat(tokenizer, row["messages"], completion_only)
    if _both(row, "prompt", "completion"):
        if isinstance(row["prompt"], list) or isinstance(row["completion"], list):
            return _dialogue(tokenizer, row["prompt"], row["completion"], completion_only)
        return _answered(tokenizer, row["prompt"], row["completion"], completion_only)
    if _both(row, "instruction", "output"):
        return _answered(tokenizer, _alpaca(row), row["output"], completion_only)
    ids, end = _ids(tokenizer, row["text"]), _end(tokenizer)
    return _example(ids if ids[-1:] == end else ids + end, 0)


def prompt_of(tokenizer: Any, row: Row) -> list[int]:
    """What comes before the answer: a last assistant turn, completion or output is not read."""
    given = row["messages"] if row.get("messages") is not None else row.get("prompt")
    if isinstance(given, list):
        turns = list(given)
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
        if not turns:
            raise DataError("a row's chat has no turn to answer; give at least one of a user")
        return _rendered(tokenizer, turns, prompt=True)
    if given is None:
        given = _alpaca(row) if row.get("instruction") is not None else row["text"]
    return _given(tokenizer, given)


def _both(row: Row, *names: str) -> bool:
    # A null is a missing value, as in a table whose rows differ.
    return all(row.get(name) is not None for name in names)


def _end(tokenizer: Any) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _ids(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=special, **_QUIET)["input_ids"]
    return ids


def _given(tokenizer: Any, text: str) -> list[int]:
    ids = _ids(tokenizer, text)
    # Some tokenizers end every text, but this one goes on.
    return ids[:-1] if ids and ids[-1:] == _end(tokenizer) else ids


def _answered(tokenizer: Any, prompt: str, answer: str, completion_only: bool) -> Example:
    before = _given(tokenizer, prompt)
    rest = _ids(tokenizer, answer, special=False) + _end(tokenizer)
    return _example(before + rest, len(before) if completion_only else 0)


def _alpaca(row: Row) -> str:
    """The prompt that Alpaca-like rows were published with (Taori et al. 2023)."""
    given = f"\n\n### Input:\n{row['input']}" if row.get("input") else ""
    return f"### Instruction:\n{row['instruction']}{given}\n\n### Response:\n"


def _chat(tokenizer: Any, messages: list[Message], completion_only: bool) -> Example:
    """A chat under the tokenizer's template; each assistant turn is found as what it adds."""
    ids = _rendered(tokenizer, messages, prompt=False)
    if not completion_only:
        return _example(ids, 0)
    target = np.full(len(ids), IGNORED, dtype=np.int64)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            # A template cannot render nothing: an answer that comes first is predicted whole.
            before = _rendered(tokenizer, messages[:turn], prompt=True) if turn else []
            upto = _rendered(tokenizer, messages[: turn + 1], prompt=False)
            _check_prefix(tokenizer, ids, (before, upto), f"turn {turn + 1} of {len(messages)}")
            target[len(before) : len(upto)] = ids[len(before) : len(upto)]
    return Example(np.asarray(ids, dtype=np.int32), target)


def _dialogue(
    tokenizer: Any, prompt: list[Message], completion: list[Message], completion_only: bool
) -> Example:
    """Prompt and completion as messages: every turn of the completion is predicted, as in TRL."""
    if not (isinstance(prompt, list) and isinstance(completion, list)):
        raise DataError(
            "a row's prompt is a list of messages and its completion a text, or the other way "
            "round; write both as messages or both as text"
        )
    ids = _rendered(tokenizer, [*prompt, *completion], prompt=False)
    before = _rendered(tokenizer, prompt, prompt=True)
    _check_prefix(tokenizer, ids, (before,), "its completion")
    return _example(ids, len(before) if completion_only else 0)


def _check_prefix(tokenizer: Any, ids: list[int], starts: Sequence[list[int]], where: str) -> None:
    if any(ids[: len(start)] != start for start in starts):
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} writes earlier turns anew when later "
            f"ones follow ({where}), so that completions cannot be found; use prompt/completion "
            "rows of text, chats of one answer, or data.completion_only: false"
        )


def _rendered(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> list[int]:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise DataError(
            f"rows hold messages, but the tokenizer of {tokenizer.name_or_path} has no chat "
            "template; use prompt/completion rows, or a model that was trained on chats"
        )
    try:
        ids: list[int] = tokenizer.apply_chat_template(
            list(messages),
            add_generation_prompt=prompt,
            tokenize=True,
            return_dict=False,
            tokenizer_kwargs=_QUIET,
        )
    except TemplateError as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} does not take a chat of {roles}: "
            f"{error}; correct the roles, or use a model that was trained on such chats"
        ) from error
    return ids


def _example(ids: list[int], unseen: int) -> Example:
    target = np.asarray(ids, dtype=np.int64)
    target[:unseen] = IGNORED
    return Example(np.asarray(ids, dtype=np.int32), target)
