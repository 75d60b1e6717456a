"""What the typed schema refuses, as sentences for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from atoll.config.checks import Problem, Problems
from atoll.config.json_schema import lookup
from atoll.config.words import choices, did_you_mean, expected, shown

__all__ = ["misfit", "problems"]

Schema = Mapping[str, Any]


def problems(error: ValidationError, *, tree: JsonValue, schema: Schema) -> list[Problem]:
    """One problem for each key, however many of the types that it may have refused it."""
    found: dict[str, Problem] = {}
    details = error.errors()
    for detail in details:
        if detail["type"] == "too_short" and _inside(detail, details):
            # Pydantic counts the items that are right; a list of wrong ones is not short as well.
            continue
        for problem in _sentences(detail, tree=tree, schema=schema):
            found.setdefault(problem.path, problem)
    return list(found.values())


def misfit(name: str, *, value: object, schema: Schema) -> str:
    """`train.learning_rate is "abc"; expected a number greater than 0`."""
    hint = ""
    if value == "":
        hint = " that is not empty"
    elif isinstance(value, str):
        options = [
            word for option in [schema, *schema.get("anyOf", [])] for word in choices(option)
        ]
        hint = did_you_mean(value, among=options)
    elif expected(schema).startswith("text") and isinstance(value, bool | int | float):
        hint = ": put it in quotes"
    return f"{name} is {shown(value)}; expected {expected(schema)}{hint}"


def _inside(outer: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Whether something within it is wrong, too."""
    place = outer["loc"]
    return any(each["loc"][: len(place)] == place != each["loc"] for each in details)


def _sentences(detail: ErrorDetails, *, tree: JsonValue, schema: Schema) -> Iterator[Problem]:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Problems):
        yield from cause.found
        return
    keys = [str(key) for key in detail["loc"]]
    path = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        yield Problem(path, _unknown(keys, schema=schema))
    elif detail["type"] == "missing":
        about = str(lookup(schema, keys)["description"])
        yield Problem(path, f"{path} is missing; it is the {about[0].lower()}{about[1:]}")
    elif not keys:
        yield Problem("", detail["msg"])
    else:
        keys, value = _reached(keys, tree=tree)
        path = ".".join(keys)
        if isinstance(cause, ValueError):
            yield Problem(path, f"{path} is {shown(value)}: {cause}")
        else:
            yield Problem(path, misfit(path, value=value, schema=lookup(schema, keys)))


def _reached(keys: Sequence[str], *, tree: JsonValue) -> tuple[list[str], JsonValue]:
    """The keys that lead to a value; pydantic adds the name of each type that was tried."""
    reached: list[str] = []
    for key in keys:
        if isinstance(tree, dict) and key in tree:
            tree = tree[key]
        elif isinstance(tree, list) and key.isdecimal():
            tree = tree[int(key)]
        else:
            break
        reached.append(key)
    return reached, tree


def _unknown(keys: Sequence[str], *, schema: Schema) -> str:
    *section, key = keys
    valid = list(lookup(schema, section).get("properties", {}))
    near = did_you_mean(key, among=valid) or _elsewhere(key, schema=schema) or "."
    inside = f" in {'.'.join(section)}" if section else ""
    return f'unknown key "{key}"{inside}{near} Valid keys: {", ".join(valid)}'


def _elsewhere(key: str, *, schema: Schema) -> str:
    """The same key in another section, or one whose whole path reads alike."""
    paths = {
        f"{section}.{name}": name
        for section in lookup(schema, []).get("properties", {})
        for name in lookup(schema, [section]).get("properties", {})
    }
    same = [path for path, name in paths.items() if name == key]
    return f'; did you mean "{same[0]}"?' if same else did_you_mean(key, among=paths)
