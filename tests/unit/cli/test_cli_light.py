"""`atoll --help` is fast because nothing heavy is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = (
    "cryptography",
    "datasets",
    "jinja2",
    "matplotlib",
    "numpy",
    "peft",
    "pydantic",
    "sklearn",
    "torch",
    "transformers",
    "yaml",
)
ATOLL = Path(sys.executable).with_name("atoll")


def test_the_front_door_imports_nothing_heavy() -> None:
    code = "import sys, json, atoll.cli.app; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(found.stdout)).isdisjoint(HEAVY)


def test_help_names_every_command_and_every_exit_code() -> None:
    text = subprocess.run([ATOLL, "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("run", "plan", "eval", "predict", "chat", "report", "export", "recipes", "init",
                    "schema", "doctor", "data", "certs", "egress", "server", "client", "status",
                    "stop", "logs"):  # fmt: skip
        assert f"\n  {command} " in text
    codes = ("2 experiment", "3 data", "4 model", "5 payload", "6 run", "7 too few", "8 cert",
             "9 a site's policy", "130")  # fmt: skip
    for code in codes:
        assert code in " ".join(text.split())
