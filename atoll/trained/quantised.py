"""A base model with quantised weights as one with plain ones, so that an adapter can be merged."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from atoll.errors import ModelError

__all__ = ["dequantise", "is_quantised", "restore_conv1d", "was_conv1d"]


def is_quantised(backbone: nn.Module) -> bool:
    """Whether it computes with quantised weights; those of a GGUF file are plain once read."""
    return bool(_odd(backbone))


def was_conv1d(backbone: nn.Module) -> list[str]:
    """Quantised layers that were GPT-2's transposed ones, which bitsandbytes makes linear."""
    return [n for n, module in backbone.named_modules() if vars(module).get("source_cls") is Conv1D]


def dequantise(backbone: Any) -> None:
    """Give a model plain weights, in float32 where they were quantised, in place.

    Raises:
        ModelError: when the quantiser cannot do it here.
    """
    quantiser = vars(backbone).get("hf_quantizer")
    if quantiser is None:
        return
    method = str(quantiser.quantization_config.quant_method).rpartition(".")[2].lower()
    odd = _odd(backbone)
    try:
        if odd and method != "torchao":
            backbone.dequantize(dtype=torch.float32)
        else:
            # Weights of torchao are tensors that know themselves what they stand for.
            for name, weight in odd.items():
                module, _, leaf = name.rpartition(".")
                plain = nn.Parameter(weight.dequantize().float(), requires_grad=False)
                backbone.get_submodule(module).register_parameter(leaf, plain)
            quantiser.remove_quantization_config(backbone)
        # PEFT reads it.
        vars(backbone).pop("is_loaded_in_8bit", None)
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the base model's weights are quantised ({method}), and cannot be made plain here: "
            f"{error}; export without --merge, or set model.name_or_path to the model that was "
            "quantised"
        ) from error
    backbone.requires_grad_(False)


def restore_conv1d(backbone: nn.Module, names: list[str]) -> None:
    """Turn linear layers back into GPT-2's transposed ones."""
    for name in names:
        linear = backbone.get_submodule(name)
        assert isinstance(linear, nn.Linear), name
        layer = Conv1D(linear.out_features, linear.in_features)
        layer.weight = nn.Parameter(linear.weight.T.contiguous(), requires_grad=False)
        layer.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        backbone.set_submodule(name, layer)


def _odd(backbone: nn.Module) -> dict[str, Any]:
    """Weights that are more than numbers in place: whole numbers and their scales."""
    return {name: w for name, w in backbone.named_parameters() if type(w) is not nn.Parameter}
