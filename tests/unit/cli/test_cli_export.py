"""`atoll export` as a user types it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from atoll.cli.app import guarded
from tests.support.finished import finish

if TYPE_CHECKING:
    from tests.support.models import Zoo

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def run(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a language model."""
    return finish(tmp_path_factory.mktemp("origin"), zoo, "gpt2")


def typed(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = guarded(["export", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_an_adapter_for_people(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(capsys, run, "--output", tmp_path / "a")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        rf"{tmp_path}/a holds the adapter \(\S+ kB\); {tmp_path}/a/README\.md has the lines to "
        r"load it\.\nLoaded back, its outputs on 12 rows differ from the trained model's by at "
        r"most \S+ of the largest \(tolerance 0\.0001\)\.\n",
        out,
    )
    assert (tmp_path / "a" / "adapter_model.safetensors").is_file()


def test_a_merged_model_for_a_program(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (run, "--output", tmp_path / "m", "--merge", "--format", "json")
    code, out, err = typed(capsys, *words)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["run"] == str(run)
    assert found["output"] == str(tmp_path / "m")
    assert (found["merged"], found["dtype"], found["tolerance"]) == (True, "float32", 1e-4)
    assert 0 < found["relative_difference"] < 1e-5
    assert found["relative_difference"] == found["largest_difference"] / found["largest_output"]
    assert (found["rows"], found["made_up_rows"]) == (12, False)
    files = [path for path in (tmp_path / "m").rglob("*") if path.is_file()]
    assert found["bytes"] == sum(path.stat().st_size for path in files)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert model.dtype == torch.float32
    assert model.config.use_cache


def test_an_earlier_one_is_replaced_only_if_forced(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(capsys, run, "--output", tmp_path / "m")[0] == 0
    code, out, err = typed(capsys, run, "--output", tmp_path / "m", "--merge")
    assert (code, out) == (6, "")
    assert err == (
        f"Error: {tmp_path}/m holds an earlier export; name another place, or add --force\n"
    )
    assert typed(capsys, run, "--output", tmp_path / "m", "--merge", "--force")[0] == 0
    assert not (tmp_path / "m" / "adapter_config.json").exists()
    assert os.listdir(tmp_path) == ["m"]


def test_a_tolerance_that_is_not_met(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (run, "--output", tmp_path / "m", "--merge", "--tolerance", "1e-12")
    code, out, err = typed(capsys, *words)
    assert (code, out) == (4, "")
    assert "the tolerance is 1e-12. Nothing was written" in err
    assert os.listdir(tmp_path) == []


WRONG: Mapping[str, tuple[list[str], int, str]] = {
    "no place": ([], 2, "Missing option '--output'"),
    "precision of an adapter": (["--output", "x", "--dtype", "bfloat16"], 2, "add --merge"),
    "another precision": (["--output", "x", "--merge", "--dtype", "int8"], 2, "is not one of"),
    "no number": (["--output", "x", "--tolerance", "nan"], 2, "--tolerance is nan"),
    "no limit": (["--output", "x", "--tolerance", "inf"], 2, "--tolerance is inf"),
    "less than nothing": (["--output", "x", "--tolerance", "-1"], 2, "x>=0"),
    "a file": (["--output", "/dev/null"], 6, "is a file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words, expected, said = WRONG[name]
    code, out, err = typed(capsys, run, *words)
    assert (code, out) == (expected, "")
    assert said in err
    assert os.listdir(tmp_path) == []


def test_runs_that_cannot_be_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(capsys, tmp_path / "none", "--output", tmp_path / "m")[0] == 6
    for name, text, said in (
        ("experiment.yaml", "- 1\n", "experiment.yaml cannot be read"),
        ("summary.json", "{", "summary.json cannot be read"),
        ("summary.json", "{}", "its files have another form than this version writes"),
    ):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(run, tmp_path / "run")
        (tmp_path / "run" / name).write_text(text)
        code, _, err = typed(capsys, tmp_path / "run", "--output", tmp_path / "m")
        assert code == 6
        assert said in err
    assert os.listdir(tmp_path) == ["run"]
