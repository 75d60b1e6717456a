"""A merged model as a folder that transformers loads without Atoll, and reading it back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atoll.adapters.stacked import StackedModel
from atoll.disk.files import json_text, write_text
from atoll.experiment.setup import Setup
from atoll.models.locate import Source, load_auto
from atoll.models.quiet import quiet
from atoll.models.sentence_files import sentence_files
from atoll.tasks import task_of
from atoll.trained.load_run import TrainedRun
from atoll.trained.merge import widen, with_head

__all__ = ["merged_lines", "read_back", "write_merged"]


def write_merged(run: TrainedRun, backbone: Any, folder: Path) -> None:
    """All that loads it: weights, tokenizer or image processor, and a head of Atoll's own."""
    base, config = run.setup.base, backbone.config
    if backbone.can_generate():
        _use_cache(backbone, on=True)  # training has no use for it, and set it off
    labels = run.setup.data.labels
    if labels and base.head and config.num_labels == len(labels):
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in config.id2label.items()}
    with quiet():
        backbone.save_pretrained(folder)
    if base.tokenizer is not None:
        _write_tokenizer(run.setup, folder)
    if base.processor is not None:
        base.processor.inner.save_pretrained(folder)
    head = run.path / "adapter" / "head.safetensors"
    if head.exists():
        shutil.copyfile(head, folder / head.name)
    if base.pooling is not None:
        length = run.setup.experiment.data.max_length
        for name, value in sentence_files(base, max_length=length).items():
            write_text(folder / name, json_text(value, indent=2) + "\n")


def read_back(run: TrainedRun, folder: Path) -> StackedModel:
    """The written model, loaded from the disk, in float32 at least; the run's own is let go."""
    base = run.setup.base
    # The run's weights are written; their memory is needed.
    base.backbone.to("meta")
    source = Source(str(folder), str(folder), trust_remote_code=base.source.trust_remote_code)
    attention = run.setup.experiment.model.attn_implementation
    options = {} if attention is None else {"attn_implementation": attention}
    backbone: nn.Module = load_auto(base.auto_class, source, options=options)
    backbone.to(run.setup.bench.device).requires_grad_(False).eval()
    if backbone.can_generate():  # type: ignore[operator]
        _use_cache(backbone, on=False)  # as in training: with it, packed rows are read as one
    widen(backbone)
    return with_head(base, backbone, folder)


def _use_cache(backbone: Any, *, on: bool) -> None:
    backbone.config.use_cache = backbone.config.get_text_config().use_cache = on


def merged_lines(setup: Setup, dtype: torch.dtype) -> str:
    """Plain transformers lines that reproduce the trained model's outputs from the folder."""
    base = setup.base
    adapter = setup.experiment.adapter.model_copy(update={"method": "none"})
    # The task's own lines, for a model with nothing beside its weights.
    bare = setup.experiment.model_copy(update={"adapter": adapter})
    usage = task_of(setup.experiment).usage(bare, base)
    outputs = "\n".join(f"    {line}" for line in usage.outputs)
    reads = "from safetensors.torch import load_file\n" if "load_file(" in outputs else ""
    code = ", trust_remote_code=True" if base.source.trust_remote_code else ""
    lines = {
        "AutoTokenizer": f'tokenizer = AutoTokenizer.from_pretrained("."{code})\n'
        'tokenizer.padding_side = "right"',
        "AutoImageProcessor": f'processor = AutoImageProcessor.from_pretrained(".", '
        f'backend="pil"{code})',
    }
    readers = "\n".join(lines[name] for name in usage.readers)
    inputs = "\n".join(usage.inputs)
    return f"""import torch
{reads}from transformers import {", ".join((base.auto_class, *usage.readers))}

{readers}
model = {base.auto_class}.from_pretrained(".", dtype={dtype}{code})
model.eval()
{inputs}
with torch.no_grad():
{outputs}"""


def _write_tokenizer(setup: Setup, folder: Path) -> None:
    """Training pads on the right; who generates may need what the tokenizer came with."""
    tokenizer, trained = setup.base.tokenizer, setup.base.tokenizer.padding_side
    came = tokenizer.init_kwargs.get("padding_side")
    if setup.base.auto_class == "AutoModelForCausalLM" and came:
        tokenizer.padding_side = came
    tokenizer.save_pretrained(folder)
    tokenizer.padding_side = trained
