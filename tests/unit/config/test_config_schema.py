"""The schema itself: documented, and the same for editors as for Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from atoll.config import Experiment, schema
from atoll.config.call import CALLS, LISTS, Call, is_call
from atoll.config.json_schema import lookup


def fields(model: type[BaseModel] = Experiment, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        inner = f"{path}{name}"
        yield inner, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{inner}.")


def test_every_key_is_described_in_one_line() -> None:
    for path, field in fields():
        description = field.description
        assert description, path
        assert "\n" not in description, path
        assert len(description) <= 150, path
        assert description.endswith("."), path


def test_the_json_schema_describes_every_key() -> None:
    root = schema()
    json.dumps(root)
    assert root["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert root["required"] == ["model", "data"]
    for path, field in fields():
        found = lookup(root, path.split("."))
        assert found["description"] == field.description, path
        assert any(key in found for key in ("type", "anyOf", "enum", "const")), path


def test_the_json_schema_holds_the_limits() -> None:
    root = schema()
    assert lookup(root, ["train", "learning_rate"])["exclusiveMinimum"] == 0
    assert lookup(root, ["model", "task"])["enum"][:2] == ["classification", "causal-lm"]
    assert lookup(root, ["devices"])["maxProperties"] == 0
    assert lookup(root, ["train"])["additionalProperties"] is False
    assert lookup(root, ["data", "labels", "3"])["type"] == "string"
    assert lookup(root, ["train", "no", "such"]) == {}


def test_the_list_of_calls_is_that_of_the_schema() -> None:
    calls = {path for path, field in fields() if field.annotation in (Call, Call | None)}
    lists = {path for path, field in fields() if field.annotation == tuple[Call, ...]}
    assert calls == CALLS
    assert lists == LISTS
    assert is_call("federation.stages.0")
    assert is_call("federation.broadcast_stages.1")
    assert not is_call("federation.stages")


def test_python_is_told_the_same() -> None:
    with pytest.raises(ValidationError, match="a LoRA of rank 0 trains nothing"):
        Experiment.model_validate(
            {"model": {"name_or_path": "a"}, "data": {"path": "b"}, "adapter": {"r": 0}}
        )
