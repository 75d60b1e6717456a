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
Place = tuple[str, ...]


def problems(error: ValidationError, *, tree: JsonValue, schema: Schema) -> list[Problem]:
    """One problem for each key, however many of the types that it may have refused it."""
    found: dict[str, Problem] = {}
    details = error.errors()
    places = [_place(detail, tree=tree) for detail in details]
    for detail, place in zip(details, places, strict=True):
        if len(place) < len(detail["loc"]) and _inside(place, places):
            # Of several types the one within which something is wrong was meant.
            continue
        if detail["type"] == "too_short" and _inside(place, places):
            # Pydantic counts the items that are right; a list of wrong ones is not short as well.
            continue
        for problem in _sentences(detail, place, tree=tree, schema=schema):
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


def _inside(outer: Place, places: Sequence[Place]) -> bool:
    """Whether something within it is wrong, too."""
    return any(each[: len(outer)] == outer != each for each in places)


def _place(detail: ErrorDetails, *, tree: JsonValue) -> Place:
    """The keys that lead to a value, or to where one is missing.

    Pydantic puts the name of each type that it tried between them.
    """
    place: list[str] = []
    for key in map(str, detail["loc"]):
        if isinstance(tree, dict) and key in tree:
            tree = tree[key]
        elif isinstance(tree, list) and key.isdecimal() and int(key) < len(tree):
            tree = tree[int(key)]
        else:
            continue
        place.append(key)
    if detail["type"] == "missing":
        place.append(str(detail["loc"][-1]))
    return tuple(place)


def _sentences(
    detail: ErrorDetails, place: Place, *, tree: JsonValue, schema: Schema
) -> Iterator[Problem]:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Problems):
        yield from cause.found
        return
    path = ".".join(place)
    if detail["type"] == "extra_forbidden":
        yield Problem(path, _unknown(place, schema=schema))
    elif detail["type"] == "missing":
        about = str(lookup(schema, place)["description"])
        yield Problem(path, f"{path} is missing; it is the {about[0].lower()}{about[1:]}")
    elif not place:
        yield Problem("", detail["msg"])
    else:
        value = _at(place, tree=tree)
        if isinstance(cause, ValueError):
            yield Problem(path, f"{path} is {shown(value)}: {cause}")
        else:
            yield Problem(path, misfit(path, value=value, schema=lookup(schema, place)))


def _at(place: Place, *, tree: JsonValue) -> JsonValue:
    for key in place:
        assert isinstance(tree, dict | list), "places were found in the tree"
        tree = tree[key] if isinstance(tree, dict) else tree[int(key)]
    return tree


def _unknown(keys: Sequence[str], *, schema: Schema) -> str:
    *section, key = keys
    here = lookup(schema, section)
    valid = [n for option in [here, *here.get("anyOf", [])] for n in option.get("properties", {})]
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
