"""The adapter as Hugging Face users load it: PEFT's layout, or safetensors and a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save

from atoll.artifacts.card import model_card
from atoll.artifacts.peft_layout import adapter_config, peft_tree
from atoll.core import State
from atoll.disk.files import json_text, write_bytes, write_json, write_text
from atoll.experiment.setup import Setup
from atoll.models.locate import fingerprint
from atoll.tasks import task_of
from atoll.tree import Tree

__all__ = ["export_adapter"]


def export_adapter(setup: Setup, state: State, folder: Path, summary: dict[str, Any]) -> None:
    """Write `adapter/`: weights, PEFT's configuration, head, labels and model card."""
    own_head = setup.base.auto_class == "AutoModel"
    adapter, head = dict(state.get("adapter", {})), state.get("head", {})
    if not own_head:
        drawn = {name: setup.base.model.get_parameter(name) for name in setup.base.fresh}
        adapter |= head | {name: value for name, value in drawn.items() if name not in adapter}
    strip = len(setup.base.prefix)
    backbone = {name[strip:]: value for name, value in adapter.items()}
    if setup.built.peft is not None:
        _save(folder / "adapter_model.safetensors", peft_tree(setup, adapter))
        write_json(folder / "adapter_config.json", adapter_config(setup))
    elif backbone:
        _save(folder / "model.safetensors", backbone)
    if own_head and head:
        _save(folder / "head.safetensors", head | _random_layer(setup))
    for name, value in task_of(setup.experiment).files(setup.experiment, setup.base).items():
        write_text(folder / name, json_text(value, indent=2) + "\n")
    write_json(folder / "atoll.json", _facts(setup))
    write_text(folder / "README.md", model_card(setup, summary))


def _random_layer(setup: Setup) -> Tree:
    """The random features under the head: fixed, but a reader should not need the seed."""
    return {
        name: value
        for name, value in setup.base.model.named_buffers()
        if name.startswith("random.") and not name.startswith(setup.base.prefix)
    }


def _facts(setup: Setup) -> dict[str, Any]:
    """What Atoll needs to use the adapter again, and a person to read the head."""
    base, named = setup.base, setup.experiment.model.name_or_path
    first, moments = setup.data.rows(setup.data.clients[0], "train")[0], setup.data.moments
    scale = {} if moments is None else {"mean": moments.mean, "deviation": moments.deviation}
    return {
        # A folder's own path, which leads there from every other folder; builtin: has another path.
        "base_model": base.source.hub_id if base.source.hub_id == base.source.path else named,
        "base_fingerprint": fingerprint(base.backbone),
        "auto_class": base.auto_class,
        "method": setup.experiment.adapter.method,
        "pooling": base.pooling,
        "normalize": base.normalize,
        # A language model does not read labels that stand beside its texts.
        "labels": list(setup.data.labels) if setup.data.labels and base.head else None,
        "chat": setup.data.kind == "messages" or isinstance(first.get("prompt"), list),
        **scale,
    }


def _save(path: Path, tree: Tree) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in tree.items()}
    write_bytes(path, save(plain, metadata={"format": "pt"}))
