"""The model card: what was trained, on what, and the plain lines that load it."""

from __future__ import annotations

from typing import Any

import torch

from atoll.experiment.setup import Setup

__all__ = ["loading_lines", "model_card"]


def model_card(setup: Setup, summary: dict[str, Any]) -> str:
    """README.md of the adapter folder."""
    experiment, base = setup.experiment, setup.base
    federation = experiment.federation
    rows = sum(count.train for count in setup.data.counts.values())
    library = "peft" if experiment.adapter.method == "lora" else "transformers"
    return f"""---
base_model: {base.source.hub_id}
library_name: {library}
tags: [federated, atoll]
---

# Adapter for {base.source.hub_id}

Trained with Atoll across {len(setup.data.clients)} clients whose {rows} training rows stayed where
they were.

| | |
|---|---|
| task | {experiment.model.task} |
| method | {experiment.adapter.method} |
| algorithm | {federation.algorithm.name} |
| rounds, statistics exchanges | {summary["num_rounds"]}, {summary["exchanges"]} |
| clients per round | {setup.clients_per_round} |
| {summary["metric"]} | {_number(summary["final"])} |
| local only, pooled | {_number(summary["baselines"]["local"])}, \
{_number(summary["baselines"]["pooled"])} |
| differential privacy | none |

## Use

```python
{loading_lines(setup)}
```
{_tolerance(setup)}"""


def loading_lines(setup: Setup) -> str:
    """Plain transformers (and peft) lines that reproduce the trained model's logits.

    In bfloat16 only about, see the card.
    """
    base, length = setup.base, setup.experiment.data.max_length
    start = f"""import torch
from safetensors.torch import load_file
from transformers import {base.auto_class}, AutoTokenizer

base = "{base.source.hub_id}"
tokenizer = AutoTokenizer.from_pretrained(base{_source(setup)})
model = {base.auto_class}.from_pretrained(
    base{_source(setup)}, dtype={_dtype(setup)}{_num_labels(setup)}
)
{_padding(setup)}{_weights(setup)}
model.eval()
texts = ["a row of text"]
batch = tokenizer(
    texts, padding=True, truncation=True, max_length={length}, return_tensors="pt"
)
with torch.no_grad():
"""
    if base.auto_class != "AutoModel":
        return start + "    logits = model(**batch).logits"
    lines = _pooled(setup)
    return start + "\n".join(f"    {line}" for line in lines)


def _pooled(setup: Setup) -> list[str]:
    """From token vectors to logits, where the head is Atoll's own."""
    base = setup.base
    # Atoll pools in float32 or finer.
    exact = ".float()" if _dtype(setup) == "torch.bfloat16" else ""
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
    if setup.experiment.adapter.head_features is not None:
        lines += [
            'angles = features @ head["random.weight"].T + head["random.bias"]',
            'features = (2 / len(head["random.bias"])) ** 0.5 * torch.cos(angles)',
        ]
    lines += [
        'logits = features @ head["classifier.weight"].T + head["classifier.bias"]',
    ]
    return lines


def _dtype(setup: Setup) -> str:
    """What the model computes in: its own precision, or that of values that replace all of it."""
    dtype = next(setup.base.backbone.parameters()).dtype
    if setup.experiment.adapter.method == "full":
        dtype = torch.promote_types(dtype, torch.float32)
    return str(dtype)


def _tolerance(setup: Setup) -> str:
    if _dtype(setup) != "torch.bfloat16":
        return ""
    return """
The base computes in bfloat16, which has three digits: these lines give the trained model's logits
within 5 % of the largest.
"""


def _num_labels(setup: Setup) -> str:
    if setup.base.auto_class != "AutoModelForSequenceClassification":
        return ""
    assert setup.data.labels is not None
    return f", num_labels={len(setup.data.labels)}"


def _source(setup: Setup) -> str:
    source = setup.base.source
    revision = f', revision="{source.revision}"' if source.revision else ""
    return revision + (", trust_remote_code=True" if source.trust_remote_code else "")


def _padding(setup: Setup) -> str:
    """Lines for a tokenizer that has no padding of its own, or pads on the left."""
    tokenizer = setup.base.tokenizer
    if tokenizer.pad_token != tokenizer.eos_token:
        return 'tokenizer.padding_side = "right"\n'
    return (
        'tokenizer.padding_side, tokenizer.pad_token = "right", tokenizer.eos_token\n'
        "model.config.pad_token_id = tokenizer.pad_token_id\n"
    )


def _weights(setup: Setup) -> str:
    method = setup.experiment.adapter.method
    if method == "lora":
        return 'from peft import PeftModel\nmodel = PeftModel.from_pretrained(model, ".")'
    if method == "none" and setup.base.auto_class == "AutoModel":
        return "# the base model is unchanged; only the head is new"
    return (
        'found = model.load_state_dict(load_file("model.safetensors"), strict=False)\n'
        "assert not found.unexpected_keys"
    )


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
