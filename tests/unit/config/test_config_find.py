"""Functions in packages of files, and a user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import JsonValue

from atoll.config import Call, load, resolve
from atoll.errors import ConfigError


def where(path: str) -> str:
    known = {"federation.algorithm": 4, "federation.algorithm.name": 5}
    return f"f.yaml:{known.get(path, 6)}"


def call(name: str, arguments: dict[str, JsonValue] | None = None) -> Call:
    return Call(name, arguments or {}, path="federation.algorithm")


def refusal(
    name: str, arguments: dict[str, JsonValue] | None = None, *, package: str = "atoll"
) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(call(name, arguments), package=package, where=where)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(dedent(text))


def test_a_package_without_a_list_has_one_file_for_each_function(folder: Path) -> None:
    write(folder / "islands" / "__init__.py")
    write(folder / "islands" / "fedavg.py", "def fedavg(*, x: int = 1): return x")
    write(folder / "islands" / "helper.py", "def help_with(): pass")
    write(folder / "islands" / "_private.py", "def _private(): pass")
    sys.path.append(str(folder))
    bound = resolve(call("fedavg", {"x": 3}), package="islands", where=where)
    assert bound() == 3
    assert refusal("fedavgg", package="islands") == (
        'f.yaml:5: unknown algorithm "fedavgg"; did you mean "fedavg"? Valid: fedavg; or '
        "your own, as my_package.module:function"
    )
    assert refusal("helper", package="islands").startswith('f.yaml:5: unknown algorithm "helper"')
    assert refusal("_private", package="islands").startswith('f.yaml:5: unknown algorithm "_priv')


def test_annotations_that_are_strings_are_read(folder: Path) -> None:
    write(
        folder / "later.py",
        """
        from __future__ import annotations
        def mine(*, x: float): return x
        """,
    )
    assert resolve(call("later:mine", {"x": 2}), package="atoll", where=where)() == 2.0
    assert refusal("later:mine", {"x": "a"}) == (
        'f.yaml:6: federation.algorithm.x is "a"; expected a number'
    )


def test_a_users_own_function_in_the_current_directory(folder: Path) -> None:
    write(folder / "own" / "parts.py", "def mine(*, x: int = 1): return x\nlimit = 3\n")
    assert resolve(call("own.parts:mine"), package="atoll", where=where)() == 1
    assert refusal("own.parts:mime") == (
        'f.yaml:5: algorithm "own.parts:mime": no "mime" in it; did you mean "mine"?'
    )
    assert refusal("own.parts:limit") == (
        'f.yaml:5: algorithm "own.parts:limit": limit in own.parts is no function'
    )


def test_a_users_module_that_cannot_be_imported(folder: Path) -> None:
    write(folder / "bad.py", "import no_such_package")
    write(folder / "worse.py", "1 / 0")
    write(folder / "unread.py", "from __future__ import annotations\ndef f(*, x: Nope): pass\n")
    assert refusal("bad:f") == (
        'f.yaml:5: algorithm "bad:f" needs the package no_such_package, which is not installed'
    )
    assert refusal("worse:f") == (
        'f.yaml:5: algorithm "worse:f": importing worse failed: ZeroDivisionError: division by zero'
    )
    assert refusal("nowhere.at_all:f") == (
        f'f.yaml:5: algorithm "nowhere.at_all:f": there is no module nowhere in {folder} or among '
        "the installed packages"
    )
    assert refusal("no where:f") == (
        'f.yaml:5: algorithm "no where:f": write it as my_package.module:function'
    )
    assert refusal("unread:f") == (
        "f.yaml:4: the signature of unread:f cannot be read (name 'Nope' is not defined); its "
        "annotations must be importable at run time"
    )


def test_a_users_own_function_beside_the_experiment_file(folder: Path) -> None:
    write(folder / "trial" / "beside.py", "def mine(*, x: int = 1): return x\n")
    write(folder / "trial" / "json.py", "1 / 0")  # it hides no installed module
    text = "model: {name_or_path: a}\ndata: {path: b}\nfederation: {algorithm: beside:mine}\n"
    write(folder / "trial" / "e.yaml", text)
    loaded = load("trial/e.yaml")
    algorithm = loaded.experiment.federation.algorithm
    assert resolve(algorithm, package="atoll", where=loaded.where)() == 1
    assert sys.path[-2:] == [str(folder), str(folder / "trial")]
    import json

    assert json.loads("1") == 1
    missing = load("trial/e.yaml", overrides=["federation.algorithm=beside_not:mine"])
    with pytest.raises(ConfigError, match=f"in {folder} or {folder}/trial or among the inst"):
        resolve(missing.experiment.federation.algorithm, package="atoll", where=loaded.where)
