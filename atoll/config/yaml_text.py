"""YAML with the line of every key, read and written by the rules of YAML 1.2.

PyYAML follows YAML 1.1, where `1e-3` is text, `no` is false and `010` is eight.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import yaml
from pydantic import JsonValue

from atoll.errors import ConfigError

__all__ = ["Source", "parse", "write"]

DEEPEST = 50
"""Collections inside each other; PyYAML takes minutes to see that thousands are too many."""
_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]{1,300}", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what either version of YAML would not read as text."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # PyYAML writes a few line breaks of Unicode as they are, and reads them back as spaces.
    style = None if value.isprintable() else '"'
    return dumper.represent_scalar(f"{_TAG}str", value, style=style)


_Dumper.add_representer(str, _text)

_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(frozen=True)
class Source:
    """Plain values, where each dotted key stands, and what is wrong so far."""

    tree: JsonValue
    positions: dict[str, str]
    problems: list[str]


def parse(text: str, *, at: Callable[[int], str], path: str = "") -> Source:
    """Read one document; `at` turns a line number into a position for people."""
    source, depth = Source(None, {}, []), 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise RecursionError
            if isinstance(event, yaml.AliasEvent):
                place = at(event.start_mark.line + 1 if event.start_mark else 1)
                raise ConfigError(f"{place}: *{event.anchor} is an alias; write its value instead")
        node = yaml.compose(text, Loader=_Loader)
        tree = None if node is None else _value(node, path=path, at=at, into=source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = at(mark.line + 1 if mark else 1)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{place}: broken YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        place = at(text.count("\n", 0, int(error.position)) + 1)
        raise ConfigError(f"{place}: broken YAML: a character that text cannot hold") from None
    except RecursionError:
        raise ConfigError(f"{at(1)}: nested too deeply; a few levels are read") from None
    return Source(tree, source.positions, source.problems)


def write(tree: JsonValue) -> str:
    """YAML that reads back as the same values, keys in their order."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _value(node: yaml.Node, *, path: str, at: Callable[[int], str], into: Source) -> JsonValue:
    into.positions.setdefault(path, at(node.start_mark.line + 1))
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path=path, at=at, into=into)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [
            _value(item, path=_join(path, str(i)), at=at, into=into)
            for i, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, place=at(node.start_mark.line + 1))
    raise ConfigError(f"{at(node.start_mark.line + 1)}: the tag {node.tag} is not read; remove it")


def _mapping(
    node: yaml.MappingNode, *, path: str, at: Callable[[int], str], into: Source
) -> JsonValue:
    result: dict[str, JsonValue] = {}
    for key, value in node.value:
        place = at(key.start_mark.line + 1)
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{place}: a key is a list or a mapping; keys are names")
        name = str(key.value)
        inner = _join(path, name)
        if name in result:
            into.problems.append(
                f'{place}: "{name}" stands twice, first at {into.positions[inner]}; keep one'
            )
            continue
        into.positions[inner] = place
        result[name] = _value(value, path=inner, at=at, into=into)
    return result


def _scalar(node: yaml.ScalarNode, *, place: str) -> JsonValue:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    try:
        if kind == "str":
            text.encode()
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except (KeyError, ValueError):
        raise ConfigError(f"{place}: {json.dumps(text)} cannot be read as {kind}") from None
    raise ConfigError(f"{place}: the tag {node.tag} is not read; remove it")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
