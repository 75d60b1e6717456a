"""The signed manifest of a run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import atoll
from atoll.egress.manifest import (
    Participant,
    code_hash,
    manifest,
    verify_manifest,
    write_manifest,
)
from atoll.errors import RunError
from tests.support.departures import site

TEXT = "model: {name_or_path: m}  # é\n"
SITES = [Participant("hospital-a", "ab" * 32, 1, 20), Participant("hospital-b", "cd" * 32, 1, 7)]


def test_a_manifest_says_what_a_run_was(tmp_path: Path) -> None:
    server = site("server")
    facts = manifest("finetune", TEXT, base="11" * 32, labels=None, participants=SITES)
    write_manifest(tmp_path / "manifest.json", facts, server.key)
    found = verify_manifest(tmp_path / "manifest.json", server.certificate)
    assert found == facts
    assert found["experiment_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert (found["run"], found["experiment"], found["base"]) == ("finetune", TEXT, "11" * 32)
    assert (found["atoll"], found["labels"]) == (atoll.__version__, None)
    assert found["participants"][1] == {
        "name": "hospital-b", "certificate_sha256": "cd" * 32, "first_round": 1, "last_round": 7,
    }  # fmt: skip
    assert json.loads((tmp_path / "manifest.json").read_bytes())["kind"] == "manifest"


def test_a_manifest_is_replaced_whole(tmp_path: Path) -> None:
    path, server = tmp_path / "manifest.json", site("server")
    for number in range(2):
        write_manifest(path, {"run": str(number)}, server.key)
    assert verify_manifest(path, server.certificate) == {"run": "1"}
    assert [each.name for each in tmp_path.iterdir()] == ["manifest.json"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "manifest.json"
    write_manifest(path, {"run": "r", "participants": []}, site("server").key)
    return path


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_byte_that_is_changed_is_found(data: st.DataObject, written: Path) -> None:
    path, server = written.with_name("changed.json"), site("server")
    content = bytearray(written.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(RunError, match="has been edited"):
        verify_manifest(path, server.certificate)


def test_another_key_and_another_kind_are_refused(tmp_path: Path) -> None:
    path, server = tmp_path / "manifest.json", site("server")
    write_manifest(path, {"run": "r"}, site("thief").key)
    with pytest.raises(RunError, match="another key has signed it than that of the certificate"):
        verify_manifest(path, server.certificate)
    write_manifest(path, {"run": "r", "kind": "head"}, server.key)
    with pytest.raises(RunError, match="has been edited"):
        verify_manifest(path, server.certificate)
    with pytest.raises(RunError, match="cannot be read: No such file"):
        verify_manifest(tmp_path / "none", server.certificate)


def test_the_code_hash_is_that_of_the_package_that_runs(tmp_path: Path) -> None:
    package = Path(atoll.__file__).parent
    names = sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))
    joined = b"".join(
        f"{name}:{(package / name).stat().st_size};".encode() + (package / name).read_bytes()
        for name in names
    )
    assert code_hash() == hashlib.sha256(joined).hexdigest()
    shutil.copytree(package, tmp_path / "atoll", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from atoll.egress.manifest import code_hash; print(code_hash())"

    def copied() -> str:
        there = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, check=True)
        return done.stdout.decode().strip()

    assert copied() == code_hash()
    with (tmp_path / "atoll" / "round.py").open("a") as stream:
        stream.write("#")
    assert copied() != code_hash()
