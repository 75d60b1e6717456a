"""What a loaded model must be before anything trains on it: readable rows, no look ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atoll.errors import ConfigError, ModelError
from atoll.models.locate import Source, find_file

__all__ = [
    "check_causal",
    "check_packing",
    "check_text_alone",
    "check_tokenizer",
    "reads_at_most",
]

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
    found = _pull(model, 0, {"input_ids": torch.arange(4).unsqueeze(0)})
    if bool((found[1:] != 0).any()):
        raise ModelError(
            f"model {source.hub_id} ({type(model).__name__}) reads the tokens that follow, so that "
            "it sees what it should predict; a model that writes is a decoder, such as GPT-2 or "
            "Llama. Name another model, or set model.task to classification"
        )


def check_packing(model: nn.Module, source: Source) -> None:
    """Refuse a language model for which positions that begin anew do not part two texts.

    Raises:
        ConfigError: when a text sees what stands before it in its sequence.
    """
    ids = torch.arange(6).unsqueeze(0)
    try:
        found = _pull(model, 3, {"input_ids": ids, "position_ids": ids % 3})
    except TypeError:  # It takes no positions.
        found = torch.ones(1)
    if bool((found[:3] != 0).any()):
        raise ConfigError(
            f"data.packing is true, but model {source.hub_id} ({type(model).__name__}) lets a text "
            "see those before it in its sequence; set data.packing to false"
        )


def _pull(model: nn.Module, place: int, inputs: Mapping[str, Tensor]) -> Tensor:
    """[T, d]: the gradient of one token's logits to all that were embedded.

    What no path carries is exactly zero, in any precision.
    """
    embedded: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        embedded.append(out.detach().requires_grad_())
        return embedded[-1]

    device = next(model.parameters()).device
    hook = model.get_input_embeddings().register_forward_hook(keep)  # type: ignore[operator]
    try:
        with torch.enable_grad():
            logits = model(**{name: value.to(device) for name, value in inputs.items()}).logits
            (found,) = torch.autograd.grad(logits[0, place].float().square().sum(), embedded)
    finally:
        hook.remove()
    return found[0]


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
