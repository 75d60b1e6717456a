"""Rows and lengths that a task cannot use, told before anything trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from atoll.config import load
from atoll.errors import AtollError
from atoll.experiment.baselines import expected_passes
from atoll.experiment.setup import prepare
from tests.support.federation import labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import scene, write_clients

DEAD = {"prompt": "a prompt that fills all of the row", "completion": "x"}
LIVE = {"prompt": "reef", "completion": "tide"}


def _refused(folder: Path, zoo: Zoo, kind: str, rows: Any, **sections: Mapping[str, Any]) -> str:
    write_clients(folder / "data", rows)
    with pytest.raises(AtollError) as caught:
        scene(folder, zoo, kind, **sections)
    return str(caught.value)


def test_labels_that_are_no_classes(tmp_path: Path, zoo: Zoo) -> None:
    decimal = {"ada": [{"text": "a", "label": 0.5}, {"text": "b", "label": 1.25}]}
    message = _refused(tmp_path / "decimal", zoo, "bert", decimal)
    assert "labels are decimal numbers" in message
    assert message.endswith("write class names or whole numbers, or set model.task to regression")
    several = {"ada": [{"text": "a", "label": ["sea", "sky"]}, {"text": "b", "label": ["sea"]}]}
    message = _refused(tmp_path / "several", zoo, "bert", several)
    told = "client ada, training row 1: a label is a list (sea, sky), and task classification gives"
    assert message.startswith(told)
    later = {"ada": [{"text": "a", "label": "sea"}] * 2 + [{"text": "a", "label": ["sky"]}]}
    told = "client ada, training row 3: a label is a list (sky)"
    assert told in _refused(tmp_path / "later", zoo, "bert", later)
    texts = {"ada": [{"text": "a"}] * 2}
    assert "has text rows" in _refused(tmp_path / "texts", zoo, "bert", texts)


@pytest.mark.parametrize(("kind", "length", "message"), [
    ("bert", 2, "adds 2 special tokens to each row; set at least 3"),
    ("bert", 65, "takes at most 64 tokens; lower it"),
])  # fmt: skip
def test_lengths(tmp_path: Path, zoo: Zoo, kind: str, length: int, message: str) -> None:
    found = _refused(tmp_path, zoo, kind, labelled_rows(), data={"max_length": length})
    assert f"data.max_length is {length}, but " in found
    assert message in found


def test_no_row_of_anyone_has_something_to_predict(tmp_path: Path, zoo: Zoo) -> None:
    found = _refused(tmp_path, zoo, "llama", {"ada": [DEAD] * 2, "bob": [DEAD] * 2})
    assert found == (
        "no training row of any client has anything to predict: a text is empty, a chat has no "
        "answer, or a prompt fills all of data.max_length"
    )


def test_rows_to_measure_with_that_hold_nothing_to_predict(tmp_path: Path, zoo: Zoo) -> None:
    def told(*, own: list[dict[str, str]], common: list[dict[str, str]]) -> list[str]:
        for file, rows in ((data / "ada" / "test.jsonl", own), (data / "test.jsonl", common)):
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            if not rows:
                file.unlink()
        notes: list[str] = []
        prepare(load(tmp_path / "experiment.yaml"), note=notes.append)
        return [note.partition(":")[0] for note in notes]

    data = write_clients(tmp_path / "data", {"ada": [LIVE, LIVE]})
    scene(tmp_path, zoo, "llama")
    nothing = "has anything to predict, so that nothing is measured there"
    assert told(own=[DEAD], common=[]) == [f"no held-out row {nothing}"]
    assert told(own=[DEAD, LIVE], common=[]) == []
    assert told(own=[LIVE], common=[DEAD]) == [f"no row of the common test set {nothing}"]
    assert told(own=[DEAD], common=[DEAD, LIVE]) == []


@pytest.mark.parametrize("packing", [False, True])
def test_rows_that_are_left_out_are_told(tmp_path: Path, zoo: Zoo, packing: bool) -> None:
    rows = {"ada": [DEAD, DEAD, LIVE, LIVE], "bob": [LIVE] * 3, "cy": [DEAD, LIVE],
            "dee": [DEAD] * 2, "eve": [DEAD, LIVE]}  # fmt: skip
    write_clients(tmp_path / "data", rows)
    scene(tmp_path, zoo, "llama", data={"packing": packing})
    notes: list[str] = []
    setup = prepare(load(tmp_path / "experiment.yaml"), note=notes.append)
    why = "a text is empty, a chat has no answer, or a prompt fills all of data.max_length"
    assert notes == [
        f"2 rows of client ada have nothing to predict and are left out: {why}",
        f"1 row of client cy has nothing to predict and is left out: {why}",
        f"2 rows of client dee have nothing to predict and are left out: {why}",
        "rows of 1 more client have nothing to predict and are left out",
    ]
    # A client with nothing to train on takes no place in a cohort.
    assert setup.data.clients == ("ada", "bob", "cy", "eve")
    assert setup.data.skipped == ("dee",)
    # Nor is a row that nobody trains on counted.
    assert [setup.data.counts[name].train for name in setup.data.clients] == [2, 3, 1, 1]
    assert expected_passes(setup, 4) == 4.0
