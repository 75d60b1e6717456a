"""The house: floors, no cycles, a loop that fits on a few screens."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.architecture import source
from tests.architecture.source import FLOORS, PACKAGE, modules

SOURCES = modules()


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "atoll"])
def test_a_module_imports_only_floors_below(name: str) -> None:
    assert source.climbing(name, SOURCES[name]) == []


def test_every_package_stands_on_a_floor() -> None:
    parts = {name.split(".")[1] for name in SOURCES if "." in name}
    assert parts <= frozenset().union(*FLOORS)
    assert source.imports(SOURCES["atoll"]) == set()


def test_the_contract_sees_a_climb() -> None:
    up = "def late():\n    from atoll.runs.run import run_experiment\n"
    assert source.climbing("atoll.local.train", up) == ["atoll.local.train imports atoll.runs.run"]
    for sideways in ("from atoll.servers import average", "import atoll.servers.sgd"):
        assert source.climbing("atoll.stages.clipping", sideways)
    assert source.climbing("atoll.tree", "from atoll import rng")
    assert source.climbing("atoll.local.train", "from atoll import rng") == []
    assert source.climbing("atoll.stages.clipping", "from atoll.stages.received import x") == []
    with pytest.raises(AssertionError, match="stands on no floor"):
        source.climbing("atoll.attic.box", "import atoll.core")


def test_there_are_no_import_cycles() -> None:
    assert source.cycles(SOURCES) == []


def test_cycles_are_seen() -> None:
    ring = {
        "atoll.a": "import atoll.b",
        "atoll.b": "def f():\n    from atoll.c import x",
        "atoll.c": "from atoll import a",
        "atoll.d": "import atoll.a",
    }
    assert {"atoll.a", "atoll.b", "atoll.c"} <= set(source.cycles(ring))
    assert source.cycles({**ring, "atoll.c": ""}) == []
    package = {"atoll.p": "from atoll.p.q import x", "atoll.p.q": "from atoll.p import x"}
    assert source.cycles(package) == ["atoll.p", "atoll.p.q"]


def test_the_loop_fits_in_one_short_file() -> None:
    text = SOURCES["atoll.round"]
    assert len(text.splitlines()) < 200
    loops = [
        name
        for name, other in SOURCES.items()
        if any(function.name == "federate" for function in source.functions(ast.parse(other)))
        and "Report" in other
    ]
    assert loops == ["atoll.round"]


LIGHT = """
import sys
import {module}
heavy = {{"torch", "transformers", "peft", "datasets", "numpy", "flwr", "flwr_datasets", "sklearn",
         "fastapi", "uvicorn", "cryptography"}}
print(sorted(heavy & set(sys.modules)))
"""


def _heavy(module: str) -> str:
    command = [sys.executable, "-c", LIGHT.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return done.stdout.strip()


def test_the_front_door_opens_without_heavy_imports() -> None:
    assert _heavy("atoll.cli.main") == "[]"
    assert _heavy("atoll.config") == "[]"
    assert "torch" in _heavy("atoll.tree")
