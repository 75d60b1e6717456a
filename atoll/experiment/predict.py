"""What a trained model says about new rows: a label with its probability, or text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from atoll.adapters.site import Frame
from atoll.errors import DataError
from atoll.experiment.load_run import TrainedRun
from atoll.local.infer import forward_batches
from atoll.models.checks import reads_at_most
from atoll.models.texts import prompt_of

__all__ = ["PROMPTS", "Labelled", "classify", "generate"]

PROMPTS = ("messages", "prompt", "instruction", "text")
"""Columns that a language model can be asked with."""


@dataclass(frozen=True)
class Labelled:
    """The most probable label, and the probability of every label, in the label map's order."""

    label: str
    probabilities: Mapping[str, float]


def classify(run: TrainedRun, texts: Sequence[str]) -> list[Labelled]:
    """A label for each text; texts are cut at the length that the model was trained with."""
    bench, labels = run.setup.bench, run.setup.data.labels
    assert labels is not None, "a classifier has labels"
    examples = bench.objective.encode([{"text": text} for text in texts])
    found: dict[int, Labelled] = {}
    for rows, _, logits in forward_batches(bench, run.values, examples):
        shares = logits.double().softmax(-1).tolist()
        for row, share in zip(rows, shares, strict=True):
            probabilities = dict(zip(labels, share, strict=True))
            found[row] = Labelled(max(probabilities, key=probabilities.__getitem__), probabilities)
    return [found[row] for row in range(len(texts))]


def generate(
    run: TrainedRun, rows: Sequence[Mapping[str, Any]], *, max_new_tokens: int
) -> Iterator[str]:
    """The most probable answer to each row, asked as the rows of the run's training were.

    A row has what those rows have before the answer, another kind of prompt, or a `text`.
    """
    tokenizer = run.setup.base.tokenizer
    for row in rows:
        new = _greedy(run, prompt_of(tokenizer, _asked(run, row)), max_new_tokens)
        yield tokenizer.decode(new, skip_special_tokens=True)


def _asked(run: TrainedRun, row: Mapping[str, Any]) -> Mapping[str, Any]:
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


@torch.inference_mode()
def _greedy(run: TrainedRun, ids: Sequence[int], max_new_tokens: int) -> list[int]:
    """Token by token; the cache holds what was read, so that each step reads one token."""
    bench, base = run.setup.bench, run.setup.base
    limit = reads_at_most(base.backbone, base.tokenizer)
    if not ids:
        raise DataError("a prompt is empty; the model needs at least one token to go on from")
    if len(ids) >= limit:
        raise DataError(f"a prompt has {len(ids)} tokens, but the model reads at most {limit}")
    values = {name: value.unsqueeze(0).to(bench.device) for name, value in run.values.items()}
    ends, cache = _ends(run), DynamicCache(config=base.backbone.config)
    read, new = list(ids), list[int]()
    while len(new) < max_new_tokens and len(ids) + len(new) < limit:
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([read], device=bench.device),
            "past_key_values": cache,
            "use_cache": True,
        }
        logits = bench.model.forward(values, inputs, Frame(1))
        token = int(logits[0, -1].argmax())
        if token in ends:
            break
        new.append(token)
        read = [token]
    return new


def _ends(run: TrainedRun) -> set[int]:
    """Tokens that end a text, by the tokenizer and by the model's own settings."""
    base = run.setup.base
    ends: Any = base.backbone.generation_config.eos_token_id  # type: ignore[union-attr]
    listed = ends if isinstance(ends, list) else [ends]
    return {token for token in [*listed, base.tokenizer.eos_token_id] if token is not None}
