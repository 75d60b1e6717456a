"""Refusals that leave a run directory as it was, and changes that make no other experiment."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atoll.disk.files import sweep, unfinished, write_text
from atoll.errors import RunError
from atoll.experiment.setup import prepare
from atoll.experiment.standing import standing
from atoll.runs.checkpoints import read
from atoll.runs.resume import started
from atoll.runs.run import federated, run_experiment
from atoll.runs.run_dir import RunDirectory
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

SECTIONS: dict[str, dict[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "evaluate": {"baselines": [], "load_best": True},
}


def _left(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> Path:
    """With a finished run of two rounds."""
    folder = tmp_path_factory.mktemp("finished")
    setup = scene(folder, zoo, **SECTIONS, federation={"num_rounds": 2})
    run_experiment(setup, folder / "run", Observer())
    return folder


def test_what_is_refused_takes_no_result_away(folder: Path, zoo: Zoo) -> None:
    """More rounds, on other rows; and on a run whose checkpoints are gone."""
    run, rows = folder / "run", folder / "data" / "ada" / "train.jsonl"
    text = rows.read_text()
    rows.write_text(text + json.dumps({"text": "more", "label": "sea"}) + "\n")
    before = _left(run)
    try:
        longer = scene(folder, zoo, **SECTIONS, federation={"num_rounds": 3})
        with pytest.raises(RunError, match="data has changed since the run in"):
            run_experiment(longer, run, Observer())
    finally:
        rows.write_text(text)
    assert _left(run) == before
    longer = scene(folder, zoo, **SECTIONS, federation={"num_rounds": 3})
    for path in (run / "checkpoints").glob("round-*/position.json"):
        path.write_text("{}")
    damaged = _left(run)
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read"):
        run_experiment(longer, run, Observer())
    assert _left(run) == damaged
    for path, content in before.items():
        Path(path).write_bytes(content)


def test_a_run_that_another_process_began_meanwhile_is_not_taken(folder: Path, zoo: Zoo) -> None:
    other = scene(folder, zoo, **SECTIONS, federation={"num_rounds": 2}, train={"adam_beta1": 0.5})
    before = _left(folder / "run")
    with pytest.raises(RunError, match=r"run of another experiment \(train.adam_beta1: 0.9 -> 0.5"):
        run_experiment(other, folder / "run", Observer())
    assert _left(folder / "run") == before


def test_where_a_run_lies_and_who_is_told_are_no_other_experiment(folder: Path) -> None:
    text = (folder / "run" / "experiment.yaml").read_text()
    assert "report_to: none\n" in text
    moved = text.replace("report_to: none", "report_to: [tensorboard]").replace("/run\n", "/b\n")
    found = standing(folder / "run", moved)
    assert (found.state, found.changes) == ("finished", "")
    held = folder / "run" / "experiment.yaml"
    try:  # A key that came with a later version has its default.
        held.write_text(text.replace("  lr_scheduler_type: constant\n", ""))
        assert held.read_text() != text
        assert standing(folder / "run", moved).state == "finished"
    finally:
        held.write_text(text)
    longer = moved.replace("num_rounds: 2", "num_rounds: 3")
    found = standing(folder / "run", longer)
    assert (found.state, found.changes) == ("unfinished", "federation.num_rounds: 2 -> 3")


def test_a_byte_of_a_position_that_flips_is_seen(folder: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "round-2"
    shutil.copytree(folder / "run" / "checkpoints" / "round-2", checkpoint)
    path = checkpoint / "position.json"
    content = path.read_bytes()
    for place in range(content.index(b'"seconds"')):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        # A blank may become another one.
        if not chr(content[place]).isspace():
            with pytest.raises(RunError, match=r"is damaged|of another version"):
                read(checkpoint)


def test_a_best_model_that_is_lost_is_told(folder: Path, zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(tmp_path, zoo, **SECTIONS, federation={"num_rounds": 2})
    run = tmp_path / "run"
    for line in federated(setup, run, Observer()):
        if line.round == 1:
            break
    (best,) = (run / "checkpoints").glob("best-*")
    (best / "server.safetensors").write_bytes(b"")
    os.replace(best, best.with_name("best-0"))
    lines = RunDirectory(run).rounds()
    # No later round is better.
    RunDirectory(run).keep_rounds([{**line, "own": 2.0 - line["round"]} for line in lines])
    with pytest.raises(RunError, match=r"checkpoints/best-0 is damaged .*put it back, or remove"):
        run_experiment(setup, run, Observer())


def test_a_run_keeps_the_adapter_that_it_started_from(
    folder: Path, zoo: Zoo, tmp_path: Path
) -> None:
    shutil.copytree(folder / "run" / "adapter", tmp_path / "adapter")
    adapter = {**SECTIONS["adapter"], "name_or_path": str(tmp_path / "adapter")}
    sections = {**SECTIONS, "adapter": adapter}
    setup = scene(tmp_path, zoo, **sections, federation={"num_rounds": 1})
    facts = tmp_path / "adapter" / "atoll.json"
    for mark, told in ((None, 0), ("0123", 1)):
        if mark is not None:
            facts.write_text(
                json.dumps({**json.loads(facts.read_text()), "base_fingerprint": mark})
            )
        notes: list[str] = []
        prepare(setup.loaded, note=notes.append)
        assert sum("was trained on other weights than those of" in one for one in notes) == told
    run = tmp_path / "run"
    next(federated(setup, run, Observer()))
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    changed = scene(tmp_path, zoo, **sections, federation={"num_rounds": 1})
    again = started(RunDirectory(run), changed, print)
    for name, value in setup.start.server["adapter"].items():
        assert torch.equal(again.start.server["adapter"][name], value)
        assert not torch.equal(changed.start.server["adapter"][name], value)


def test_a_message_may_hold_any_line_break(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    lines = [{"round": n, "failures": {"a\u2028b": "x\x85y\x0bz\x1c"}} for n in range(2)]
    for line in lines:
        run.add_round(line)
    assert run.rounds() == lines


def test_what_a_killed_process_was_writing_is_no_run_and_is_swept(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".experiment.yaml.x1y2z3a4.partial").write_text("mod")
    assert standing(run, "seed: 0\n").state == "new"
    (run / ".gitignore").write_text("*")
    with pytest.raises(RunError, match="holds files that are not of a run"):
        standing(run, "seed: 0\n")
    (run / ".adapter.x1y2z3a4.partial").mkdir()
    sweep(run)
    assert [path.name for path in run.iterdir()] == [".gitignore"]
    write_text(run / "whole", "text")
    assert not any(map(unfinished, run.iterdir()))
