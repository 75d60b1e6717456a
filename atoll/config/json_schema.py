"""The JSON schemas of our files, for editors and for messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from atoll.config.schema import Experiment

__all__ = ["lookup", "schema", "schema_of"]

Schema = Mapping[str, Any]


def schema() -> dict[str, Any]:
    """That of the experiment file."""
    return schema_of(Experiment)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Draft 2020-12, with descriptions and defaults."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}


def lookup(root: Schema, path: Sequence[str]) -> Schema:
    """The part of a schema that describes the value at a path; empty where nothing does."""
    here = _follow(root, root)
    for key in path:
        here = next(
            (
                _follow(root, step)
                for option in [here, *here.get("anyOf", [])]
                if isinstance(step := _step(_follow(root, option), key), dict)
            ),
            {},
        )
    return here


def _step(here: Schema, key: str) -> object:
    if here.get("type") == "array":
        return here.get("items")
    return here.get("properties", {}).get(key, here.get("additionalProperties"))


def _follow(root: Schema, here: Schema) -> Schema:
    reference = here.get("$ref")
    if reference is not None:
        here = {**root["$defs"][reference.rpartition("/")[2]], **here}
    if "anyOf" in here:
        return {**here, "anyOf": [_follow(root, option) for option in here["anyOf"]]}
    return here
