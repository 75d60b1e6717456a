"""Causal language modelling: chat templates, completion-only loss, packing."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atoll.errors import DataError
from atoll.models.objective import Batch, Example, Objective, collate_text
from atoll.tree import Tree

__all__ = ["causal", "pack"]

IGNORED = -100


def causal(
    tokenizer: Any,
    *,
    max_length: int,
    completion_only: bool = True,
    packing: bool = False,
) -> Objective:
    """Next-token cross-entropy over messages, prompt/completion, Alpaca's fields or text.

    completion_only: prompts and the turns of others are read, not predicted.
    packing: rows share a sequence of max_length without seeing each other.
    """

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        examples = [_encode(tokenizer, row, completion_only) for row in rows]
        cut = [_cut(example, max_length) for example in examples]
        return pack(cut, max_length) if packing else cut

    def no_terms(examples: Sequence[Example]) -> Tree:
        return {}

    return Objective(
        metric="perplexity",
        higher_is_better=False,
        encode=encode,
        count=lambda example: int((example.target[1:] != IGNORED).sum()),
        collate=functools.partial(
            collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=True
        ),
        terms=no_terms,
        losses=_losses,
        scores=lambda logits, batch: _losses(logits, batch, {}),
        final=lambda mean: math.exp(min(mean, 700.0)),
    )


def _encode(tokenizer: Any, row: Mapping[str, Any], completion_only: bool) -> Example:
    if "messages" in row:
        return _encode_messages(tokenizer, row["messages"], completion_only)
    if "instruction" in row:
        row = {"prompt": _alpaca(row), "completion": row["output"]}
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    if "completion" in row:
        prompt = tokenizer(row["prompt"])["input_ids"]
        if end and prompt[-1:] == end:
            prompt = prompt[:-1]
        answer = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + end
        return _example(prompt + answer, len(prompt) if completion_only else 0)
    ids = tokenizer(row["text"])["input_ids"]
    return _example(ids if ids[-1:] == end else ids + end, 0)


def _alpaca(row: Mapping[str, Any]) -> str:
    """The prompt that Alpaca-like rows were published with (Taori et al. 2023)."""
    given = f"\n\n### Input:\n{row['input']}" if row.get("input") else ""
    return f"### Instruction:\n{row['instruction']}{given}\n\n### Response:\n"


def _encode_messages(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    completion_only: bool,
) -> Example:
    """A chat under the tokenizer's template; each assistant turn is found as what it adds."""
    if not tokenizer.chat_template:
        raise DataError(
            f"rows hold messages, but the tokenizer of {tokenizer.name_or_path} has no chat "
            "template; use prompt/completion rows, or a model that was trained on chats"
        )

    def render(upto: int, *, prompt: bool) -> list[int]:
        ids: list[int] = tokenizer.apply_chat_template(
            messages[:upto], add_generation_prompt=prompt, tokenize=True, return_dict=False
        )
        return ids

    ids = render(len(messages), prompt=False)
    if not completion_only:
        return _example(ids, 0)
    target = np.full(len(ids), IGNORED, dtype=np.int64)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            # A template cannot render nothing: an answer that comes first is predicted whole.
            before = render(turn, prompt=True) if turn else []
            upto = render(turn + 1, prompt=False)
            start, stop = len(before), len(upto)
            if ids[:start] != before or ids[:stop] != upto:
                raise DataError(
                    f"the chat template of {tokenizer.name_or_path} writes earlier turns anew when "
                    f"later ones follow (turn {turn + 1} of {len(messages)}), so that completions "
                    "cannot be found; use prompt/completion rows, chats of one answer, or "
                    "data.completion_only: false"
                )
            target[start:stop] = ids[start:stop]
    return Example(np.asarray(ids, dtype=np.int32), target)


def _example(ids: list[int], unseen: int) -> Example:
    target = np.asarray(ids, dtype=np.int64)
    target[:unseen] = IGNORED
    return Example(np.asarray(ids, dtype=np.int32), target)


def _cut(example: Example, max_length: int) -> Example:
    return Example(example.ids[:max_length], example.target[:max_length])


def pack(examples: Sequence[Example], max_length: int) -> list[Example]:
    """First-fit decreasing; the first token of each row is never predicted from another row's."""
    bins: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=len, reverse=True):
        place = next((i for i, free in enumerate(room) if free >= len(example)), None)
        if place is None:
            place = len(bins)
            bins.append([])
            room.append(max_length)
        bins[place].append(example)
        room[place] -= len(example)
    return [_join(rows) for rows in bins]


def _join(rows: Sequence[Example]) -> Example:
    targets = [row.target.copy() for row in rows]
    for target in targets:
        target[0] = IGNORED
    return Example(
        np.concatenate([row.ids for row in rows]),
        np.concatenate(targets),
        np.concatenate([np.arange(len(row)) for row in rows]),
    )


def _losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
    target = batch.target[:, 1:]
    # In bfloat16 a sum of losses has three digits.
    exact = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    losses = cross_entropy(exact.transpose(1, 2), target, reduction="none", ignore_index=IGNORED)
    return losses.sum(1)
