"""The model card: what was trained, on what, and the plain lines that load it."""

from __future__ import annotations

import json
from typing import Any

import torch

from atoll.accounting import stated
from atoll.artifacts.plain_lines import bottleneck_lines
from atoll.experiment.setup import Setup
from atoll.models.eight_bits import HEADS
from atoll.tasks import task_of
from atoll.tasks.kind import Usage
from atoll.tasks.text import model_dtype

__all__ = ["loading_lines", "model_card"]


def model_card(setup: Setup, summary: dict[str, Any]) -> str:
    """README.md of the adapter folder."""
    experiment, base = setup.experiment, setup.base
    federation = experiment.federation
    rows = sum(count.train for count in setup.data.counts.values())
    clients = len(setup.data.clients)
    counted = f"{rows} " if rows else ""  # sites may keep it
    library = "transformers" if setup.built.peft is None else "peft"
    return f"""---
base_model: {_quoted(base.source.hub_id)}
library_name: {library}
tags: [federated, atoll]
---

# Adapter for {base.source.hub_id}

Trained with Atoll across {clients} clients whose {counted}training rows stayed where they were.

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
| differential privacy | {stated(summary) or "none"} |

## Use

```python
{loading_lines(setup)}
```
{_tolerance(setup)}"""


def loading_lines(setup: Setup) -> str:
    """Plain transformers (and peft) lines that reproduce the trained model's outputs.

    In bfloat16 only about, see the card.
    """
    base, usage = setup.base, task_of(setup.experiment).usage(setup.experiment, setup.base)
    inputs = "\n".join(usage.inputs)
    outputs = "\n".join(f"    {line}" for line in usage.outputs)
    readers = "\n".join(_reader(setup, name) for name in usage.readers)
    return f"""import torch
from safetensors.torch import load_file
from transformers import {", ".join((base.auto_class, *usage.readers))}

base = {_quoted(base.source.hub_id)}
{readers}
{_eight_bits(setup)}model = {base.auto_class}.from_pretrained(
    base{_source(setup)}, dtype={model_dtype(setup.experiment, base)}{_options(setup, usage)}
)
{_padding(setup)}{_weights(setup)}
model.eval()
{inputs}
with torch.no_grad():
{outputs}"""


def _quoted(text: str) -> str:
    """As YAML and Python read a path that may hold quotes and colons: as JSON writes it."""
    return json.dumps(text, ensure_ascii=False)


def _reader(setup: Setup, name: str) -> str:
    """The line that loads a tokenizer or an image processor, the latter without torchvision."""
    if name == "AutoTokenizer":
        return f"tokenizer = AutoTokenizer.from_pretrained(base{_source(setup)})"
    processor = setup.base.processor
    assert processor is not None, "a model that reads images has a processor"
    place = '"."' if processor.made else f"base{_source(setup)}"
    return f'processor = {name}.from_pretrained({place}, backend="pil")'


def _eight_bits(setup: Setup) -> str:
    """Lines by which weights are rounded as they were for training."""
    if not setup.base.source.load_in_8bit:
        return ""
    return (
        "from torchao.quantization import Int8WeightOnlyConfig\n"
        "from transformers import TorchAoConfig\n"
        f"rounded = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert={list(HEADS)})\n"
    )


def _options(setup: Setup, usage: Usage) -> str:
    rounded = ", quantization_config=rounded" if setup.base.source.load_in_8bit else ""
    return usage.options + rounded


def _tolerance(setup: Setup) -> str:
    if setup.base.source.differs:
        return f"\n{setup.base.source.differs}\n"
    if model_dtype(setup.experiment, setup.base) != torch.bfloat16:
        return ""
    return """
The base computes in bfloat16, which has three digits: these lines give the trained model's logits
within 5 % of the largest.
"""


def _source(setup: Setup) -> str:
    source = setup.base.source
    revision = f", revision={_quoted(source.revision)}" if source.revision else ""
    file = f", gguf_file={_quoted(source.gguf_file)}" if source.gguf_file else ""
    return revision + file + (", trust_remote_code=True" if source.trust_remote_code else "")


def _padding(setup: Setup) -> str:
    """Lines for a tokenizer that has no padding of its own, or pads on the left."""
    tokenizer = setup.base.tokenizer
    if tokenizer is None:
        return ""
    if tokenizer.pad_token != tokenizer.eos_token:
        return 'tokenizer.padding_side = "right"\n'
    return (
        'tokenizer.padding_side, tokenizer.pad_token = "right", tokenizer.eos_token\n'
        "model.config.pad_token_id = tokenizer.pad_token_id\n"
    )


def _weights(setup: Setup) -> str:
    method = setup.experiment.adapter.method
    if setup.built.peft is not None:
        return 'from peft import PeftModel\nmodel = PeftModel.from_pretrained(model, ".")'
    if method == "none" and setup.base.auto_class == "AutoModel":
        return "# the base model is unchanged; only the head is new"
    if method == "bottleneck":
        return bottleneck_lines(setup.experiment.adapter.activation)
    return (
        'found = model.load_state_dict(load_file("model.safetensors"), strict=False)\n'
        "assert not found.unexpected_keys"
    )


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
