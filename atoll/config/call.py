"""A function named in the experiment file, with its keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue
from pydantic_core import CoreSchema, core_schema

__all__ = ["CALLS", "LISTS", "Call", "is_call", "placed"]

T = TypeVar("T")

# Where the experiment file names functions, and where it lists them.
CALLS = frozenset(
    {
        "data.partition",
        "federation.aggregator",
        "federation.algorithm",
        "federation.runtime",
        "federation.server",
    }
)
LISTS = frozenset({"federation.stages", "federation.broadcast_stages"})


@dataclass(frozen=True)
class Call:
    """`fedavg`, or `{name: fedprox, mu: 0.1}`.

    path: its key in the file.   folder: where the file stands, and a user's own modules may.
    """

    name: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    path: str = field(default="", compare=False)
    folder: str | None = field(default=None, compare=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Read from a string or a mapping, write as the shorter of the two."""
        return core_schema.no_info_plain_validator_function(
            _parse,
            serialization=core_schema.plain_serializer_function_ser_schema(_plain),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A name, or a mapping with a name and any other keys."""
        name = {"type": "string", "minLength": 1}
        mapping = {"type": "object", "properties": {"name": name}}
        return {"anyOf": [name, mapping]}


def is_call(path: str) -> bool:
    """Whether the file names a function at this key."""
    section, _, index = path.rpartition(".")
    return path in CALLS or (section in LISTS and index.isdigit())


def placed(value: T, path: str, context: Mapping[str, Any] | None = None) -> T:
    """The same value, with the path of every call in it, and the folder of its file."""
    result: Any = value
    if isinstance(value, Call):
        result = replace(value, path=path, folder=(context or {}).get("folder"))
    elif isinstance(value, tuple | list):
        items = (placed(item, f"{path}.{i}", context) for i, item in enumerate(value))
        result = type(value)(items)
    return result  # type: ignore[no-any-return]


def _parse(value: object) -> Call:
    if isinstance(value, Call):
        return value
    if isinstance(value, str) and value:
        return Call(value)
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, str) and name:
            return Call(name, {key: item for key, item in value.items() if key != "name"})
        raise ValueError("the mapping needs a name, as in {name: fedprox, mu: 0.1}")
    raise ValueError("expected a name, or a mapping as in {name: fedprox, mu: 0.1}")


def _plain(call: Call) -> JsonValue:
    return {"name": call.name, **call.arguments} if call.arguments else call.name
