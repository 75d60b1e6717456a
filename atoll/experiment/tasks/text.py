"""What tasks on texts share: the plain lines from a text to the trained model's outputs."""

from __future__ import annotations

import torch

from atoll.config import Experiment
from atoll.experiment.tasks.kind import Usage
from atoll.models.base import Base

__all__ = ["model_dtype", "text_usage"]


def model_dtype(experiment: Experiment, base: Base) -> torch.dtype:
    """What the model computes in: its own precision, or that of values that replace all of it."""
    dtype = next(base.backbone.parameters()).dtype
    if experiment.adapter.method == "full":
        dtype = torch.promote_types(dtype, torch.float32)
    return dtype


def text_usage(experiment: Experiment, base: Base) -> Usage:
    """One text through tokenizer, model, and the head where it is Atoll's own."""
    length = experiment.data.max_length
    inputs = [
        'texts = ["a row of text"]',
        "batch = tokenizer(",
        f'    texts, padding=True, truncation=True, max_length={length}, return_tensors="pt"',
        ")",
    ]
    if base.auto_class != "AutoModel":
        return Usage(inputs, ["logits = model(**batch).logits"])
    return Usage(inputs, _pooled(experiment, base))


def _pooled(experiment: Experiment, base: Base) -> list[str]:
    # Atoll pools in float32 or finer.
    exact = ".float()" if model_dtype(experiment, base) == torch.bfloat16 else ""
    pooled = "hidden[:, 0]"
    if base.pooling == "mean":
        pooled = "(hidden * mask).sum(1) / mask.sum(1).clamp(min=1)"
    lines = [
        f"hidden = model(**batch).last_hidden_state{exact}",
        'mask = batch["attention_mask"].unsqueeze(-1)',
        f"features = {pooled}",
    ]
    if base.normalize:
        lines.append("features = torch.nn.functional.normalize(features, dim=-1)")
    lines.append('head = load_file("head.safetensors")')
    if experiment.adapter.head_features is not None:
        lines += [
            'angles = features @ head["random.weight"].T + head["random.bias"]',
            'features = (2 / len(head["random.bias"])) ** 0.5 * torch.cos(angles)',
        ]
    return [*lines, 'logits = features @ head["classifier.weight"].T + head["classifier.bias"]']
