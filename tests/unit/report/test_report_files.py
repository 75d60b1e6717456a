"""Files that are missing, damaged or of another kind; and the report as a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from atoll.errors import RunError
from atoll.report.read import read_run
from atoll.report.write import try_report, write_report
from tests.unit.report.scenes import rounds, run_folder, write_lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run")


def test_a_place_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run directory .*/none; name one that `atoll"):
        read_run(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="there is no run directory"):
        read_run(tmp_path / "file")
    with pytest.raises(RunError, match=r"is no run directory: it holds no experiment\.yaml"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("summary.json", b"{", r"summary\.json: no JSON \(.*the file is damaged; restore it, or"),
        ("summary.json", b"[]", r"summary\.json is not what a run writes"),
        ("summary.json", b"\xff", r"summary\.json: not UTF-8 text \(byte 0\)"),
        ("summary.json", b'{"final": "high"}', r"summary\.json: final: input should be a valid nu"),
        ("summary.json", b'{"final": NaN}', r"summary\.json: final: input should be a finite"),
        ("summary.json", b'{"per_client": {"ada": 3}}', r"summary\.json: per_client\.ada: "),
        ("summary.json", b"[" * 100_000, r"summary\.json: no JSON"),
        ("run.json", b"", r"run\.json: no JSON"),
        ("experiment.yaml", b"a: [", r"experiment\.yaml:1: broken YAML"),
        ("experiment.yaml", b"\x80", r"experiment\.yaml: not UTF-8"),
        ("rounds.jsonl", b'{"round": 0}\n{"loss"\n{"round": 2}\n', r"rounds\.jsonl:2: no JSON"),
        ("rounds.jsonl", b'{"round": "x"}\n', r"rounds\.jsonl:1: round: "),
        ("rounds.jsonl", b"3\n{}\n", r"rounds\.jsonl:1: the value: "),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(run: Path, name: str, content: bytes, says: str) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=says) as error:
        write_report(run)
    assert error.value.exit_code == 6
    assert not (run / "report.html").exists()


def test_a_last_line_that_was_cut_off_is_left_out(run: Path) -> None:
    with (run / "rounds.jsonl").open("a") as stream:
        stream.write('{"round": 5, "lo')
    found = read_run(run)
    assert [row.round for row in found.rounds] == [0, 1, 2, 3, 4]
    assert found.notes == ("line 6 of rounds.jsonl is cut off and left out",)


def test_rounds_that_were_done_again_count_once(run: Path) -> None:
    again = [{**line, "loss": 9.0} for line in rounds(3)[2:]]
    write_lines(run, [*rounds(4), *again])
    found = read_run(run).rounds
    assert [row.round for row in found] == [0, 1, 2, 3, 4]
    assert [row.loss for row in found] == [None, 1.0, 9.0, 9.0, 0.25]


def test_a_message_may_hold_a_line_break_of_unicode(run: Path) -> None:
    line = json.dumps({"round": 0, "failures": {"ada": "a\u2028b"}}, ensure_ascii=False)
    (run / "rounds.jsonl").write_text(line + "\n", encoding="utf-8")
    (row,) = read_run(run).rounds
    assert row.failures == {"ada": "a\u2028b"}


@pytest.mark.parametrize(
    "experiment",
    ["", "3", "model: [1]\nfederation: {stages: 3, num_rounds: [1], algorithm: 2}\n",
     "model: {task: {a: b}, name_or_path: null}\nadapter: {method: [lora]}\nfederation: text\n",
     "federation: {stages: [{c: 1}, 2], fraction_train: no}\nadapter: {method: lora}\n"],
)  # fmt: skip
def test_an_experiment_of_another_version_is_shown_as_it_stands(run: Path, experiment: str) -> None:
    (run / "experiment.yaml").write_text(experiment)
    _, path = write_report(run)
    assert "<code>" in path.read_text()


@pytest.mark.parametrize("record", ['{"data": 3}', '{"versions": [], "command": "x", "a": {}}'])
def test_a_record_of_another_version_is_shown_as_it_stands(run: Path, record: str) -> None:
    (run / "run.json").write_text(record)
    write_report(run)


def test_the_same_files_give_the_same_report(run: Path, tmp_path: Path) -> None:
    _, first = write_report(run)
    text = first.read_text()
    assert first == run / "report.html"
    _, second = write_report(run, tmp_path / "deep" / "er" / "x.html")
    assert second.read_text() == text
    assert {item.name for item in run.iterdir()} == {
        "experiment.yaml", "run.json", "rounds.jsonl", "summary.json", "report.html",
    }  # fmt: skip


def test_a_place_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written: it is a folder; name a file"):
        write_report(run, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"a part of this path is a file"):
        write_report(run, tmp_path / "file" / "x.html")


def test_a_run_does_not_fail_with_its_report(run: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    try_report(run, note=notes.append)
    assert notes == []
    assert (run / "report.html").is_file()
    (run / "summary.json").write_text("{")
    try_report(run, note=notes.append)
    shutil.rmtree(run)
    try_report(run, note=notes.append)
    assert [note.partition(":")[0] for note in notes] == [f"{run}/report.html was not written"] * 2
    assert all(note.endswith(f"`atoll report {run}` tries again") for note in notes)
