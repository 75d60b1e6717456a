"""What a loaded model must be before anything trains on it: readable rows, no look ahead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from atoll.errors import ModelError
from atoll.models.locate import Source, find_file

__all__ = ["check_causal", "check_text_alone", "check_tokenizer", "reads_at_most"]

FEW = 16  # a vocabulary of so few words beside the special tokens may be made up


def check_tokenizer(tokenizer: Any, source: Source) -> None:
    """Refuse a tokenizer without files: transformers makes one up that knows no word.

    Raises:
        ModelError: when no file of its vocabulary is there.
    """
    names = sorted(type(tokenizer).vocab_files_names.values())
    if not names or len(tokenizer) > len(tokenizer.all_special_ids) + FEW:
        return
    if not any(find_file(source, name) for name in names):
        raise ModelError(
            f"model {source.hub_id} has no tokenizer: none of {', '.join(names)} stands beside its "
            "weights, and without one every word is unknown; save the tokenizer there, as in "
            "tokenizer.save_pretrained(folder)"
        )


def check_causal(model: nn.Module, source: Source) -> None:
    """Refuse a language model whose first logits depend on later tokens: it would read the answer.

    Raises:
        ModelError: for a bidirectional model.
    """
    embedded: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        embedded.append(out.detach().requires_grad_())
        return embedded[-1]

    hook = model.get_input_embeddings().register_forward_hook(keep)  # type: ignore[operator]
    try:
        with torch.enable_grad():
            logits = model(input_ids=torch.arange(4, device=_device(model)).unsqueeze(0)).logits
            # A gradient that no path carries is exactly zero, in any precision.
            (found,) = torch.autograd.grad(logits[0, 0].float().square().sum(), embedded)
    finally:
        hook.remove()
    if bool((found[0, 1:] != 0).any()):
        raise ModelError(
            f"model {source.hub_id} ({type(model).__name__}) reads the tokens that follow, so that "
            "it sees what it should predict; a model that writes is a decoder, such as GPT-2 or "
            "Llama. Name another model, or set model.task to classification"
        )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def reads_at_most(model: nn.Module, tokenizer: Any) -> int:
    """The longest row in tokens; RoBERTa and its kin count positions from padding_idx + 1."""
    config: Any = model.config
    limit = min(tokenizer.model_max_length, _positions(config) or tokenizer.model_max_length)
    for name, table in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(table, nn.Embedding):
            lost = 0 if table.padding_idx is None else table.padding_idx + 1
            limit = min(limit, table.num_embeddings - lost)
    return int(limit)


def _positions(config: Any) -> int | None:
    """Of the model, or of its part for texts."""
    config = config.get_text_config()
    found: int | None = getattr(config, "max_position_embeddings", None)
    return found


def check_text_alone(backbone: nn.Module, source: Source) -> None:
    """Refuse a model of two encoders where rows hold nothing but text.

    Raises:
        ModelError: with the task that is for such models.
    """
    if {"get_image_features", "get_text_features"} <= set(dir(type(backbone))):
        raise ModelError(
            f"model {source.hub_id} ({type(backbone).__name__}) has an encoder of images beside "
            "that of texts, and rows without images do not use it; give rows of image and text "
            "(model.task: embedding), or name a model of texts"
        )
