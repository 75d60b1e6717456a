"""The adapter as Hugging Face users load it: PEFT's layout, or safetensors and a few lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from atoll.core import State
from atoll.experiment.card import model_card
from atoll.experiment.files import write_json, write_text, write_whole
from atoll.experiment.setup import Setup
from atoll.tree import Tree

__all__ = ["adapter_config", "export_adapter", "peft_names"]


def export_adapter(setup: Setup, state: State, folder: Path, summary: dict[str, Any]) -> None:
    """Write `adapter/`: weights, PEFT's configuration, head, labels and model card."""
    own_head = setup.base.auto_class == "AutoModel"
    adapter, head = dict(state.get("adapter", {})), state.get("head", {})
    if not own_head:
        drawn = {name: setup.base.model.get_parameter(name) for name in setup.base.fresh}
        adapter |= head | {name: value for name, value in drawn.items() if name not in adapter}
    strip = len(setup.base.prefix)
    backbone = {name[strip:]: value for name, value in adapter.items()}
    if setup.experiment.adapter.method == "lora":
        _save(folder / "adapter_model.safetensors", peft_names(backbone))
        write_json(folder / "adapter_config.json", adapter_config(setup))
    elif backbone:
        _save(folder / "model.safetensors", backbone)
    if own_head and head:
        _save(folder / "head.safetensors", head | _random_layer(setup))
    write_json(folder / "atoll.json", _facts(setup))
    write_text(folder / "README.md", model_card(setup, summary))


def _random_layer(setup: Setup) -> Tree:
    """The random features under the head: fixed, but a reader should not need the seed."""
    return {
        name: value
        for name, value in setup.base.model.named_buffers()
        if name.startswith("random.") and not name.startswith(setup.base.prefix)
    }


def peft_names(tree: Tree) -> Tree:
    """Names as `PeftModel.save_pretrained` writes them."""
    return {f"base_model.model.{name}": value for name, value in tree.items()}


def adapter_config(setup: Setup) -> dict[str, Any]:
    """PEFT's own LoraConfig, written out; the head is saved where the Auto class has one."""
    from peft import LoraConfig

    settings, base = setup.experiment.adapter, setup.base
    saved = None
    if base.head and base.auto_class != "AutoModel":
        drawn = sorted({name.rpartition(".")[0] for name in base.fresh})
        saved = [base.head.split(".")[0], *drawn]
    task = {
        "AutoModelForCausalLM": "CAUSAL_LM",
        "AutoModelForSequenceClassification": "SEQ_CLS",
        "AutoModel": "FEATURE_EXTRACTION",
    }[base.auto_class]
    config = LoraConfig(
        base_model_name_or_path=base.source.hub_id,
        revision=base.source.revision,
        task_type=task,
        inference_mode=True,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        target_modules=list(setup.built.targets),
        modules_to_save=saved,
        fan_in_fan_out=setup.built.transposed,
    )
    found = config.to_dict()
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in found.items()
    }


def _facts(setup: Setup) -> dict[str, Any]:
    """What Atoll needs to use the adapter again, and a person to read the head."""
    base, named = setup.base, setup.experiment.model.name_or_path
    first = setup.data.rows(setup.data.clients[0], "train")[0]
    return {
        # A folder's own path, which leads there from every other folder; builtin: has another path.
        "base_model": base.source.hub_id if base.source.hub_id == base.source.path else named,
        "auto_class": base.auto_class,
        "method": setup.experiment.adapter.method,
        "pooling": base.pooling,
        "normalize": base.normalize,
        # A language model does not read labels that stand beside its texts.
        "labels": list(setup.data.labels) if setup.data.labels and base.head else None,
        "chat": setup.data.kind == "messages" or isinstance(first.get("prompt"), list),
    }


def _save(path: Path, tree: Tree) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in tree.items()}
    write_whole(path, lambda partial: _write(partial, plain))


def _write(path: Path, tree: Tree) -> None:
    try:
        save_file(tree, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # A full disk, say: safetensors gives the system's number in words only.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error)) from error
