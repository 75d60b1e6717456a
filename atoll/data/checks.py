"""Checks of single values: what is wrong with a row, in words that say how to mend it."""

from __future__ import annotations

import math
from typing import Any

from atoll.data.tables import Row

__all__ = ["problem"]

_TEXT = ("text", "instruction", "input", "output", "anchor", "positive", "negative")
_TEXT_OR_MESSAGES = ("prompt", "completion", "chosen", "rejected")


def problem(column: str, row: Row) -> str | None:
    """What is wrong with one value of a column that tasks read, in words."""
    value = row.get(column)
    if value is None:
        return None
    if column in _TEXT and not isinstance(value, str):
        return f"`{column}` is {_described(value)}, not text; write it as a string."
    if column in _TEXT_OR_MESSAGES and not isinstance(value, str) and not _is_messages(value):
        return f"`{column}` is {_described(value)}; write a text or a list of messages."
    if column == "messages" and not _is_messages(value):
        return (
            f"`messages` is {_described(value)}, not a list of messages; "
            'write [{"role": "user", "content": "..."}, ...].'
        )
    if column == "tokens":
        return _token_problem(value) or _tag_problem(value, row.get("tags"))
    if column == "label" and not _is_label(value):
        return (
            f"`label` is {_described(value)}; "
            "write a name, a number, true or false, or a list of names."
        )
    if column == "label" and _is_empty(value):
        return "`label` is empty here; name the label or remove the row."
    if column == "image" and isinstance(value, bool | int | float):
        return f"`image` is {_described(value)}; give a path, bytes, base64 or pixels."
    return None


def _token_problem(tokens: Any) -> str | None:
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return "`tokens` is not a list of words; write one string for each token."
    return None


def _tag_problem(tokens: list[str], tags: Any) -> str | None:
    if tags is None:  # a row to be tagged
        return None
    if not isinstance(tags, list) or len(tags) != len(tokens):
        count = len(tags) if isinstance(tags, list) else "no list of"
        return f"{len(tokens)} tokens but {count} tags; write exactly one tag for each token."
    if not all(isinstance(tag, str | int) for tag in tags):
        return "`tags` holds something that is neither a name nor a whole number."
    return None


def _is_label(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str | int | float) and _is_label(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int)


def _is_empty(label: Any) -> bool:
    if isinstance(label, list):
        return any(map(_is_empty, label))
    return isinstance(label, str) and not label.strip()


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(message, dict) and _is_message(message) for message in value)
    )


def _is_message(message: Row) -> bool:
    return isinstance(message.get("role"), str) and (
        isinstance(message.get("content"), str | list) or "tool_calls" in message
    )


def _described(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:40] + '...'}"
