"""Base weights of 8 bits: a quarter of the memory, and rounding that every client shares.

Weights alone are rounded, each row of a matrix by its own scale, and activations keep their
precision: what a row of a batch comes to does not depend on the others, as it does where a
quantiser looks for outliers.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from atoll.errors import ModelError

__all__ = ["HEADS", "check_rounded", "eight_bit_options"]

HEADS = ("classifier", "score", "lm_head")
"""Layers that keep their precision: they give the outputs, and some of them train."""


def eight_bit_options() -> dict[str, Any]:
    """What `from_pretrained` is told so that weights of linear layers come with 8 bits.

    Raises:
        ModelError: where the package that does it is not installed, or does not run here.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ModelError(
            "model.load_in_8bit is true, which needs the package torchao; pip install torchao"
        )
    try:
        with _unspoken():
            from transformers import TorchAoConfig

            how = importlib.import_module("torchao.quantization").Int8WeightOnlyConfig()
            config = TorchAoConfig(how, modules_to_not_convert=list(HEADS))
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"model.load_in_8bit is true, but the package torchao does not run here ({error}); "
            "install a version that fits torch, or set model.load_in_8bit to false"
        ) from error
    return {"quantization_config": config}


def check_rounded(model: nn.Module, name: str) -> None:
    """Refuse a model that came with all its weights as they were.

    Raises:
        ModelError: for GPT-2, say, whose layers are no linear ones to a quantiser.
    """
    if all(type(weight) is nn.Parameter for weight in model.parameters()):
        raise ModelError(
            f"model.load_in_8bit is true, but {name} has no layer whose weights torchao rounds "
            "(GPT-2's are no linear layers to it); set model.load_in_8bit to false"
        )


@contextmanager
def _unspoken() -> Iterator[None]:
    """It warns of parts for other machines when it is imported."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
