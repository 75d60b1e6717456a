"""Values from the command line, `federation.num_rounds=5`, laid over those of the file."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from atoll.config.call import is_call
from atoll.config.words import shown
from atoll.config.yaml_text import Source, parse
from atoll.errors import ConfigError

__all__ = ["COMMAND_LINE", "override"]

COMMAND_LINE = "on the command line"


def override(source: Source, *, assignments: Sequence[str]) -> Source:
    """The source with `a.b.c=value` assignments made in their order; values are YAML."""
    for assignment in assignments:
        try:
            source = _assign(source, assignment)
        except ConfigError as error:
            source = Source(source.tree, source.positions, [*source.problems, str(error)])
    return source


def _assign(source: Source, assignment: str) -> Source:
    path, equals, text = assignment.partition("=")
    path = path.strip()
    if not equals:
        raise ConfigError(f'{COMMAND_LINE}: "{assignment}" has no "="; write {assignment}=VALUE')
    if not all(path.split(".")):
        raise ConfigError(
            f'{COMMAND_LINE}: "{assignment}" names no key; write section.key=VALUE, '
            "as in federation.num_rounds=5"
        )
    value = parse(text, at=lambda line: f"{COMMAND_LINE}: {assignment}", path=path)
    tree = _replaced(source.tree, path.split("."), value.tree, path="")
    # The file's positions below this key are of values that are gone.
    positions = {
        key: place
        for key, place in source.positions.items()
        if key != path and not key.startswith(f"{path}.")
    }
    positions |= dict.fromkeys([path, *value.positions], COMMAND_LINE)
    return Source(tree, positions, [*source.problems, *value.problems])


def _replaced(here: JsonValue, keys: Sequence[str], value: JsonValue, *, path: str) -> JsonValue:
    """`here` with another value at `keys` below it; sections that are missing are made."""
    if not keys:
        return value
    key, *rest = keys
    inner = f"{path}.{key}" if path else key
    if here is None:
        here = {}
    elif isinstance(here, str) and is_call(path):
        here = {"name": here}
    if isinstance(here, dict):
        return {**here, key: _replaced(here.get(key), rest, value, path=inner)}
    if isinstance(here, list):
        if not (key.isdecimal() and int(key) < len(here)):
            raise ConfigError(
                f"{COMMAND_LINE}: {inner} is not in the list {path}, which has {len(here)} items "
                "counted from 0; set the whole list"
            )
        i = int(key)
        return [*here[:i], _replaced(here[i], rest, value, path=inner), *here[i + 1 :]]
    raise ConfigError(
        f'{COMMAND_LINE}: {path} is {shown(here)} and has no "{key}"; set {path} itself'
    )
