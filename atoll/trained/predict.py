"""What a trained model says about new rows: a label with its probability, or text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from atoll.adapters.site import Frame
from atoll.errors import DataError
from atoll.models.checks import reads_at_most
from atoll.models.texts import prompt_of
from atoll.trained.load_run import TrainedRun

__all__ = ["PROMPTS", "asked", "decode", "generate", "greedy", "sampled"]

PROMPTS = ("messages", "prompt", "instruction", "text")
"""Columns that a language model can be asked with."""

Choose = Callable[[Tensor], int]
"""From the logits of the last token to the next one."""


def generate(
    run: TrainedRun, rows: Sequence[Mapping[str, Any]], *, max_new_tokens: int
) -> Iterator[str]:
    """The most probable answer to each row, asked as the rows of the run's training were.

    A row has what those rows have before the answer, another kind of prompt, or a `text`.
    """
    tokenizer = run.setup.base.tokenizer
    for row in rows:
        new = list(
            decode(run, prompt_of(tokenizer, asked(run, row)), max_new_tokens=max_new_tokens)
        )
        yield tokenizer.decode(new, skip_special_tokens=True)


def asked(run: TrainedRun, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with its prompt alone; a bare text becomes what the run was trained to answer."""
    own = run.kind.split("/")[0]
    given = next(name for name in dict.fromkeys((own, *PROMPTS)) if row.get(name) is not None)
    if given == "instruction":
        return {name: row[name] for name in ("instruction", "input") if name in row}
    if given != "text" or own == "text":
        return {given: row[given]}
    return (
        {"messages": [{"role": "user", "content": row["text"]}]} if run.chat else {own: row["text"]}
    )


def greedy(logits: Tensor) -> int:
    """The most probable token."""
    return int(logits.argmax())


def sampled(temperature: float, generator: torch.Generator) -> Choose:
    """A choice that draws from softmax(logits / temperature)."""

    def choose(logits: Tensor) -> int:
        chances = (logits.double().cpu() / temperature).softmax(-1)
        return int(torch.multinomial(chances, 1, generator=generator))

    return choose


def decode(
    run: TrainedRun,
    ids: Sequence[int],
    *,
    max_new_tokens: int,
    choose: Choose = greedy,
    adapted: bool = True,
) -> Iterator[int]:
    """New tokens one by one, up to an end of text or the longest row that the model reads.

    The cache holds what was read, so that each step reads one token.
    adapted: with what was trained; else the base model alone.

    Raises:
        DataError: for a prompt that is empty, or leaves no room to go on.
    """
    base, device = run.setup.base, run.setup.bench.device
    limit = reads_at_most(base.backbone, base.tokenizer)
    if not ids:
        raise DataError("a prompt is empty; the model needs at least one token to go on from")
    if len(ids) >= limit:
        raise DataError(f"a prompt has {len(ids)} tokens, but the model reads at most {limit}")
    values = {name: value.unsqueeze(0).to(device) for name, value in run.values.items()}
    ends, cache = _ends(run), DynamicCache(config=base.backbone.config)
    read = list(ids)
    for _ in range(min(max_new_tokens, limit - len(ids))):
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([read], device=device),
            "past_key_values": cache,
            "use_cache": True,
        }
        with torch.inference_mode():  # it must end before the caller goes on
            if adapted:
                logits = run.setup.bench.model.forward(values, inputs, Frame(1))
            else:
                logits = base.model(**inputs).logits
            token = choose(logits[0, -1])
        if token in ends:
            return
        yield token
        read = [token]


def _ends(run: TrainedRun) -> set[int]:
    """Tokens that end a text, by the tokenizer and by the model's own settings."""
    base = run.setup.base
    ends: Any = base.backbone.generation_config.eos_token_id  # type: ignore[union-attr]
    listed = ends if isinstance(ends, list) else [ends]
    return {token for token in [*listed, base.tokenizer.eos_token_id] if token is not None}
