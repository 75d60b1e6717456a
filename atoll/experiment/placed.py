"""Errors of what stands on an experiment file, with the line that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from atoll.config import Loaded
from atoll.errors import AtollError, ConfigError

__all__ = ["placed_errors"]

_KEY = re.compile(r"(?:model|data|adapter|train|federation|privacy|evaluate)\.[a-z_]+")
_PART = re.compile(r"(stage|aggregator|server|algorithm)\b")


@contextmanager
def placed_errors(loaded: Loaded) -> Iterator[None]:
    """Put the place before a message that begins with a key of the file, or names its parts.

    Raises:
        AtollError: of the same class.
    """
    try:
        yield
    except AtollError as error:
        place = _place(loaded, error)
        if place == "default":
            raise
        raise type(error)(f"{place}: {error}") from error


def _place(loaded: Loaded, error: AtollError) -> str:
    message = str(error)
    if key := _KEY.match(message):
        return loaded.where(key[0])
    placed = message.startswith((str(loaded.path), "on the command line", "default"))
    if placed or not isinstance(error, ConfigError):
        return "default"
    part = _PART.match(message)
    keys = ["federation"] if part is None else [f"federation.{part[1]}", "federation"]
    keys = ["federation.stages" if key == "federation.stage" else key for key in keys]
    return next((place for key in keys if (place := loaded.where(key)) != "default"), "default")
