"""`atoll schema` shows every key."""

from __future__ import annotations

import json
import re

import pytest

from atoll.cli.output import Format
from atoll.cli.schema import schema
from atoll.config import Experiment
from atoll.config import schema as json_schema
from atoll.policy import Policy, policy_schema


def test_every_key_of_every_section_stands_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    schema()
    lines = capsys.readouterr().out.splitlines()
    section = ""
    shown = set()
    for line in lines:
        key = line.strip().partition(":")[0]
        section = section if line.startswith("  ") else key
        shown.add(f"{section}.{key}" if line.startswith("  ") else key)
        assert "#" in line
    for name, field in Experiment.model_fields.items():
        assert name in shown
        inner = getattr(field.annotation, "model_fields", {})
        assert {f"{name}.{key}" for key in inner} <= shown


def test_lines_hold_type_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    schema()
    out = capsys.readouterr().out
    assert "  r: a whole number of at least 0; default 8  # Rank of LoRA.\n" in out
    assert '  algorithm: text, or a section with name; default "fedavg"  # ' in out
    assert "  name_or_path: text; required  # " in out


def test_as_json_it_is_the_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    schema(output_format=Format.json)
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_the_policys_rules_in_words_and_as_its_json_schema(
    capsys: pytest.CaptureFixture[str],
) -> None:
    schema(policy=True)
    out = capsys.readouterr().out
    for name in Policy.model_fields:
        assert re.search(rf"^{name}:.*#", out, re.MULTILINE)
    assert "\n  required: true or false; default false  # " in out
    schema(policy=True, output_format=Format.json)
    assert json.loads(capsys.readouterr().out) == policy_schema()
