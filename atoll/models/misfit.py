"""Why a model could not be loaded, in words."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any

from safetensors import SafetensorError

__all__ = ["misfit", "reason_of"]


def reason_of(error: Exception) -> str:
    """What a library's error comes to."""
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, TypeError | AttributeError | LookupError | struct.error):
        return f"a file of it has another form than expected ({error!r})"
    if kind := re.match(r"Unrecognized configuration class <class '(?:.*\.)?(\w+)'", lines[0]):
        return f"its config.json is of another kind of model ({kind[1]})"
    if lines[0].startswith("Couldn't instantiate the backend tokenizer"):
        return "it holds no tokenizer, as a model that reads no text"
    broken = isinstance(error, SafetensorError)
    return f"its weights cannot be read ({lines[0]})" if broken else lines[0]


def misfit(mismatched: Iterable[Any]) -> str:
    """Which weights are of another shape than config.json says, the first of them with both."""
    name, stored, wanted = sorted(mismatched)[0]
    return f"{name} is {tuple(stored)} among its weights, but {tuple(wanted)} by its config.json"
