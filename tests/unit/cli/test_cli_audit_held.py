"""Promises that hold, of runs that are not alone with their rows, and are not refuted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.app import guarded
from tests.support.finished import finish
from tests.support.models import Zoo

ALL = {"clip": 0.2, "sampling": "everyone"}
HEAD = {"r": 2, "head": "train"}


def _audited(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert guarded(["audit", str(run), "--format", "json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _made(folder: Path, zoo: Zoo, **sections: Any) -> Path:
    folder.mkdir()
    return finish(folder, zoo, "bert", **sections)


def test_a_run_that_goes_on_from_another_one_with_more_noise(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _made(
        tmp_path / "a", zoo, adapter=HEAD, federation={"num_rounds": 4},
        privacy={**ALL, "noise_multiplier": 10.0},
    )  # fmt: skip
    second = _made(
        tmp_path / "b", zoo, adapter={**HEAD, "name_or_path": str(first / "adapter")},
        privacy={**ALL, "noise_multiplier": 1.0},
    )  # fmt: skip
    found = _audited(second, capsys)
    assert json.loads((second / "summary.json").read_text())["privacy"]["releases"] == 5
    # What is tried is the one round of this run; what is promised holds for all of them.
    assert found["mechanism"]["claim"]["rounds"] == 1
    assert found["mechanism"]["claim"]["epsilon"] == pytest.approx(found["epsilon"])
    assert found["refuted"] == []


@pytest.mark.parametrize("unit", ["client", pytest.param("example", marks=pytest.mark.long)])
def test_noise_that_was_solved_for_those_who_were_there(
    unit: str, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    privacy = {"epsilon": 8.0, "clip": 0.2, "unit": unit}
    own = {"fraction_train": 0.5} if unit == "client" else {}
    run = _made(tmp_path / "a", zoo, adapter=HEAD, privacy=privacy, federation=own)
    data = tmp_path / "more"
    shutil.copytree(tmp_path / "a" / "data", data)
    for folder in list(data.iterdir()):
        if folder.is_dir():
            rows = folder / "train.jsonl"
            rows.write_text(rows.read_text() * 8)
            for number in range(3):
                shutil.copytree(folder, data / f"{folder.name}{number}")
    found = _audited(run, capsys, "--data", str(data))
    assert found["changed"]
    seen = found["mechanism"]
    assert not seen["less_noise"]
    assert seen["noise"] == pytest.approx(seen["claim"]["noise_multiplier"], rel=0.15)


def test_a_promise_of_no_round(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _made(
        tmp_path / "a", zoo, adapter=HEAD, federation={"num_rounds": 0},
        privacy={**ALL, "noise_multiplier": 3.0},
    )  # fmt: skip
    found = _audited(run, capsys)
    assert found["missing"]["mechanism"] == "this run released nothing"
