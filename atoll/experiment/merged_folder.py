"""A merged model as a folder that transformers loads without Atoll, and reading it back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from atoll.adapters.stacked import StackedModel
from atoll.experiment.files import json_text, write_json, write_text
from atoll.experiment.load_run import TrainedRun
from atoll.experiment.merge import widen, with_head
from atoll.experiment.setup import Setup
from atoll.experiment.tasks import task_of
from atoll.models.locate import Source, load_auto

__all__ = ["merged_lines", "read_back", "write_merged"]


def write_merged(run: TrainedRun, backbone: Any, folder: Path) -> None:
    """Configuration, weights, tokenizer, and the head and pooling where they are Atoll's own."""
    base, config = run.setup.base, backbone.config
    if backbone.can_generate():
        # Training has no use for the cache, and set it off.
        config.use_cache = config.get_text_config().use_cache = True
    labels = run.setup.data.labels
    if labels and base.head and config.num_labels == len(labels):
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in config.id2label.items()}
    with _without_bars():
        backbone.save_pretrained(folder)
    tokenizer = base.tokenizer
    # Training pads on the right; who generates may need what the tokenizer came with.
    trained, own = tokenizer.padding_side, tokenizer.init_kwargs.get("padding_side")
    tokenizer.padding_side = own if own and base.head is None else trained
    tokenizer.save_pretrained(folder)
    tokenizer.padding_side = trained
    head = run.path / "adapter" / "head.safetensors"
    if head.exists():
        shutil.copyfile(head, folder / head.name)
    if base.pooling is not None:
        _write_pooling(run.setup, folder)


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
    widen(backbone)
    return with_head(base, backbone, folder)


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
    inputs = "\n".join(usage.inputs)
    return f"""import torch
{reads}from transformers import {base.auto_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("."{code})
model = {base.auto_class}.from_pretrained(".", dtype={dtype}{code})
tokenizer.padding_side = "right"
model.eval()
{inputs}
with torch.no_grad():
{outputs}"""


@contextmanager
def _without_bars() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _write_pooling(setup: Setup, folder: Path) -> None:
    """The files by which sentence-transformers knows how token vectors become one."""
    base = setup.base
    kinds = ["Transformer", "Pooling", *(["Normalize"] if base.normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    write_text(folder / "modules.json", json_text(modules, indent=2) + "\n")
    pooling = {
        "word_embedding_dimension": base.backbone.config.hidden_size,  # type: ignore[union-attr]
        "pooling_mode_cls_token": base.pooling == "cls",
        "pooling_mode_mean_tokens": base.pooling == "mean",
    }
    write_json(folder / "1_Pooling" / "config.json", pooling)
    length = {"max_seq_length": setup.experiment.data.max_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", length)
