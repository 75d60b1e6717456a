"""What tasks on texts share: the plain lines from a text to the trained model's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atoll.config import Experiment
from atoll.models.base import Base
from atoll.tasks.kind import Reading, Usage

__all__ = [
    "batch_lines",
    "feature_lines",
    "model_dtype",
    "num_labels",
    "ranked_labels",
    "text_usage",
]


def model_dtype(experiment: Experiment, base: Base) -> torch.dtype:
    """What the model computes in: its own precision, or that of values that replace all of it."""
    dtype = next(base.backbone.parameters()).dtype
    if experiment.adapter.method == "full":
        dtype = torch.promote_types(dtype, torch.float32)
    return dtype


def text_usage(experiment: Experiment, base: Base) -> Usage:
    """One text through tokenizer, model, and the head where it is Atoll's own."""
    inputs = ['texts = ["a row of text"]', *batch_lines(experiment, "texts")]
    if base.auto_class != "AutoModel":
        return Usage(inputs, ["logits = model(**batch).logits"], options=num_labels(base))
    return Usage(inputs, _pooled(experiment, base))


def batch_lines(experiment: Experiment, rows: str) -> list[str]:
    """From the tokenizer's arguments, as they stand in a call, to a batch."""
    length = experiment.data.max_length
    return [
        "batch = tokenizer(",
        f'    {rows}, padding=True, truncation=True, max_length={length}, return_tensors="pt"',
        ")",
    ]


def ranked_labels(shares: Sequence[float], reading: Reading) -> dict[str, float]:
    """The probabilities of the most probable labels, in order."""
    named = zip(reading.labels, shares, strict=True)
    return dict(sorted(named, key=lambda item: -item[1])[: reading.top])


def num_labels(base: Base) -> str:
    """The option that gives an Auto class so many outputs, where it has a head."""
    if base.head is None:
        return ""
    return f", num_labels={len(base.model.get_parameter(f'{base.head}.weight'))}"


_POOLED = {
    "mean": "(hidden * mask).sum(1) / mask.sum(1).clamp(min=1)",
    "cls": "hidden[:, 0]",
    "last": "hidden[torch.arange(len(hidden)), mask.sum((1, 2)) - 1]",
}


def feature_lines(experiment: Experiment, base: Base) -> list[str]:
    """From a batch to one vector a text."""
    assert base.pooling is not None, "a pooled model has a pooling"
    # Atoll pools in float32 or finer.
    exact = ".float()" if model_dtype(experiment, base) == torch.bfloat16 else ""
    lines = [
        f"hidden = model(**batch).last_hidden_state{exact}",
        'mask = batch["attention_mask"].unsqueeze(-1)',
        f"features = {_POOLED[base.pooling]}",
    ]
    if base.normalize:
        lines.append("features = torch.nn.functional.normalize(features, dim=-1)")
    return lines


def _pooled(experiment: Experiment, base: Base) -> list[str]:
    lines = [*feature_lines(experiment, base), 'head = load_file("head.safetensors")']
    if experiment.adapter.head_features is not None:
        lines += [
            'angles = features @ head["random.weight"].T + head["random.bias"]',
            'features = (2 / len(head["random.bias"])) ** 0.5 * torch.cos(angles)',
        ]
    return [*lines, 'logits = features @ head["classifier.weight"].T + head["classifier.bias"]']
