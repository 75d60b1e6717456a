"""`atoll schema`: every key of the experiment file, or of a site's policy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit

__all__ = ["schema"]


def schema(
    policy: Annotated[
        bool, typer.Option("--policy", help="Print those of a site's policy file instead.")
    ] = False,
    output_format: FormatOption = Format.text,
) -> None:
    """Print the keys of the experiment file.

    Each with its type, its default and what it does. --format json prints the JSON schema, which
    editors use to complete and check files.
    """
    found = _policy() if policy else _experiment()
    if output_format is Format.json:
        emit(found)
        return
    typer.echo("\n".join(_lines(found)))


def _experiment() -> dict[str, Any]:
    from atoll.config import schema as json_schema

    return json_schema()


def _policy() -> dict[str, Any]:
    from atoll.policy import policy_schema

    return policy_schema()


def _lines(root: Mapping[str, Any]) -> Iterator[str]:
    from atoll.config.json_schema import lookup

    for section in root["properties"]:
        here = lookup(root, [section])
        if "properties" not in here:
            yield _key(section, here, required=False)
            continue
        yield f"{section}:  # {here.get('description', '')}"
        for key in here["properties"]:
            required = key in here.get("required", ())
            yield "  " + _key(key, lookup(root, [section, key]), required=required)


def _key(name: str, here: Mapping[str, Any], *, required: bool) -> str:
    from atoll.config.words import expected

    default = "; required" if required else _default(here)
    return f"{name}: {expected(here)}{default}  # {here.get('description', '')}"


def _default(here: Mapping[str, Any]) -> str:
    if "default" not in here:
        return ""
    value = here["default"]
    # A function with arguments; those that are named by default have none.
    value = value.get("name", value) if isinstance(value, dict) else value
    return f"; default {json.dumps(value)}"
