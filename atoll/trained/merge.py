"""What was trained, written into the weights of the base model itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from atoll.adapters.build import build_adapter
from atoll.adapters.peft_tuner import first_line
from atoll.adapters.stacked import StackedModel
from atoll.artifacts.plain_lines import activation_of, add_bottlenecks
from atoll.errors import ModelError
from atoll.experiment.predicting import probe_batch
from atoll.experiment.setup import Setup
from atoll.models.base import Base
from atoll.trained.load_run import TrainedRun
from atoll.trained.quantised import dequantise, is_quantised

__all__ = ["dress", "in_full", "merged_into", "set_dtype", "widen", "with_head"]


def in_full(run: TrainedRun) -> StackedModel:
    """The run's model with the adapter on plain weights, in float32 or finer.

    There its outputs depend on what was trained, and not on how many digits a weight has.
    """
    setup, base = run.setup, run.setup.base
    quantised = is_quantised(base.backbone)
    dequantise(base.backbone)
    widen(base.backbone)
    if not quantised:
        return setup.bench.model
    # What stood on quantised layers, or was made of a copy of them, is made again on plain ones.
    setup.bench.model.close()
    base.model.cpu()
    probe = probe_batch(setup.bench.objective, setup.data)
    again = build_adapter(base, setup.experiment.adapter, probe).model
    again.model.to(setup.bench.device)
    base.model.to(setup.bench.device)
    return again


def merged_into(base: Base, folder: Path) -> nn.Module:
    """The base's own backbone, its weights now holding what the adapter in a folder adds.

    Raises:
        ModelError: for what has no place in the weights.
    """
    if not (folder / "adapter_config.json").exists():
        _load_plain(base.backbone, folder)
        return base.backbone
    wrapped: Any = _wrapped(base.backbone, folder)
    config = wrapped.active_peft_config
    if config.is_prompt_learning:
        raise ModelError(
            f"{config.peft_type.value} adds tokens to what the model reads, which its weights have "
            "no place for; export without --merge"
        )
    _untie(wrapped)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # What it warns of, outputs will tell: ties, say, which are cut by now.
            warnings.simplefilter("ignore")
            merged: nn.Module = wrapped.merge_and_unload()
    except Exception as error:  # Whatever PEFT makes of what cannot be merged.
        raise ModelError(
            f"PEFT cannot merge {config.peft_type.value} ({first_line(error)}); export without "
            "--merge"
        ) from error
    _declare(merged)
    return merged


def dress(setup: Setup, folder: Path) -> StackedModel:
    """The base model under the adapter in a folder, loaded as its card says: without Atoll.

    What the checkpoint lacked is wiped first, so that the folder must bring it.
    """
    base, adapter = setup.base, setup.experiment.adapter
    top = base.head.split(".")[0] if base.head else None
    for name, value in base.model.named_parameters():
        if name in base.fresh or name.split(".")[0] == top:
            value.data.zero_()
    if (folder / "adapter_config.json").exists():
        return with_head(base, _wrapped(base.backbone, folder), folder)
    if adapter.method == "bottleneck":
        stored = load_file(folder / "model.safetensors", device=str(setup.bench.device))
        add_bottlenecks(base.backbone, stored, activation_of(adapter.activation))
    else:
        _load_plain(base.backbone, folder)
    return with_head(base, base.backbone, folder)


def with_head(base: Base, backbone: nn.Module, folder: Path) -> StackedModel:
    """A backbone in the place of the base's own, under the head in the folder."""
    if not base.prefix:
        return StackedModel(backbone, ())
    base.model.set_submodule(base.prefix.removesuffix("."), backbone)
    head = folder / "head.safetensors"
    if head.exists():
        unknown = base.model.load_state_dict(load_file(head), strict=False).unexpected_keys
        assert not unknown, f"{head} holds {unknown}"
    return StackedModel(base.model, ())


def widen(backbone: nn.Module) -> None:
    """Let it compute in float32 at least; a weight keeps its value."""
    dtype: Any = backbone.dtype
    set_dtype(backbone, torch.promote_types(dtype, torch.float32))


def set_dtype(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Round every floating weight once; tied weights stay tied."""
    saved = backbone.state_dict().keys()
    for name, value in (*backbone.named_parameters(), *backbone.named_buffers()):
        # What is made anew at each loading, rotary frequencies say, keeps its precision.
        if name in saved and value.is_floating_point():
            value.data = value.data.to(dtype)


def _wrapped(backbone: nn.Module, folder: Path) -> nn.Module:
    """The backbone under PEFT's adapter."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped: nn.Module = PeftModel.from_pretrained(backbone, str(folder))
    return wrapped.eval()


def _load_plain(backbone: nn.Module, folder: Path) -> None:
    """Weights that replace the model's own, by their names."""
    file = folder / "model.safetensors"
    if not file.exists():
        return
    unknown = backbone.load_state_dict(load_file(file), strict=False).unexpected_keys
    assert not unknown, f"{file} holds {unknown}"


def _untie(wrapped: nn.Module) -> None:
    """Give adapted layers weights of their own, where they share them with layers that are not.

    An output layer that is the embedding, say: merged in place, its adapter would change both.
    """
    owners: dict[int, list[str]] = {}
    for name, value in wrapped.named_parameters(remove_duplicate=False):
        owners.setdefault(id(value), []).append(name)
    shared = {name for names in owners.values() if len(names) > 1 for name in names}
    adapted = sorted(name for name in shared if ".base_layer." in name)
    for name in adapted:
        module, _, leaf = name.rpartition(".")
        layer = wrapped.get_submodule(module)
        own = nn.Parameter(layer.get_parameter(leaf).detach().clone(), requires_grad=False)
        layer.register_parameter(leaf, own)


def _declare(merged: Any) -> None:
    """Let the configuration say so where output and embedding are no longer one."""
    try:
        read, written = merged.get_input_embeddings(), merged.get_output_embeddings()
    except NotImplementedError:  # A model of two parts, say, which has no output of words.
        return
    if written is None or read is None or written.weight is read.weight:
        return
    for config in (merged.config, merged.config.get_text_config()):
        config.tie_word_embeddings = False
