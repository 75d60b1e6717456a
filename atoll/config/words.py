"""Values and types in words."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["choices", "did_you_mean", "expected", "shown"]

_SIMPLE = {
    "array": "a list",
    "boolean": "true or false",
    "null": "null",
    "object": "a mapping",
    "string": "text",
}
_BOUNDS = {
    "exclusiveMinimum": "greater than",
    "minimum": "of at least",
    "exclusiveMaximum": "less than",
    "maximum": "of at most",
}


def shown(value: object) -> str:
    """A value as it would stand in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def expected(schema: Mapping[str, Any]) -> str:
    """What a JSON schema asks for: `a number greater than 0, or null`."""
    if "anyOf" in schema:
        *first, last = dict.fromkeys(expected(option) for option in schema["anyOf"])
        return f"{', '.join(first)}, or {last}" if first else last
    if choices(schema):
        one_of = "one of " if len(choices(schema)) > 1 else ""
        return one_of + ", ".join(choices(schema))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        noun = "a whole number" if kind == "integer" else "a number"
        bounds = [
            f"{words} {_plain(schema[key])}" for key, words in _BOUNDS.items() if key in schema
        ]
        return " ".join([noun, " and ".join(bounds)]).strip()
    if kind == "array" and "items" in schema:
        return f"a list (each item: {expected(schema['items'])})"
    if kind == "object" and "properties" in schema:
        return f"a section with {', '.join(schema['properties'])}"
    return _SIMPLE.get(str(kind), "another value")


def _plain(number: float) -> str:
    return json.dumps(number) if isinstance(number, int) else f"{number:g}"


def choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of an enumeration; empty for other schemas."""
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return tuple(_plain(value) if isinstance(value, bool) else str(value) for value in values)


def did_you_mean(word: str, *, among: Iterable[str]) -> str:
    """`; did you mean "x"?`, or nothing where no valid word is near."""
    valid = {candidate.lower(): candidate for candidate in among}
    near = difflib.get_close_matches(word.lower(), valid, n=1, cutoff=0.6)
    return f'; did you mean "{valid[near[0]]}"?' if near else ""
