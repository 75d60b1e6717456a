"""The status file and the log of a process, as others read them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from atoll.disk.lock import alone
from atoll.errors import PolicyError, RunError
from atoll.status import SERVER, SITE, Board, Doing, find, living, look, stop, utc
from tests.support.working import working


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return found


def test_the_file_says_who_writes_it_and_what_was_noted(tmp_path: Path) -> None:
    with Board(tmp_path, SERVER) as board:
        board.show(lambda: {"round": 3})
        board.note("opening")
        board.note("hospital-a does not take part: its certificate has expired")
        found = _read(tmp_path)
        assert (found["kind"], found["pid"], found["state"]) == ("server", os.getpid(), "running")
    found = _read(tmp_path)
    assert found["state"] == "finished"
    assert found["round"] == 3
    assert [one["text"] for one in found["notes"]][:1] == ["opening"]
    assert [one["text"][:10] for one in found["refusals"]] == ["hospital-a"]
    lines = (tmp_path / "server.log").read_text().splitlines()
    assert lines[0].partition(" ")[2] == "opening"
    assert all(line[10] == "T" and line[19] == "Z" for line in lines)


def test_a_change_is_written_while_the_process_works(tmp_path: Path) -> None:
    facts = {"round": 1}
    with Board(tmp_path, SERVER) as board:
        board.show(lambda: facts)
        while _read(tmp_path).get("round") != 1:
            time.sleep(0.02)
        facts = {"round": 2}
        while _read(tmp_path).get("round") != 2:
            time.sleep(0.02)


def test_a_note_cannot_command_a_terminal_nor_begin_a_line(tmp_path: Path) -> None:
    with Board(tmp_path, SITE) as board:
        board.note("a\x1b[2Jb\r\n2026-01-01T00:00:00Z forged")
    lines = (tmp_path / "client.log").read_text().split("\n")
    assert "\x1b" not in "".join(lines)
    assert lines[1].startswith("    2026-01-01")


@pytest.mark.parametrize(
    ("error", "state"),
    [(KeyboardInterrupt(), "stopped"), (RunError("the disk is full"), "failed")],
)
def test_the_end_is_told(error: BaseException, state: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), Board(tmp_path, SERVER):
        raise error
    found = _read(tmp_path)
    assert found["state"] == state
    assert found.get("why", "") == str(error)


def test_what_goes_wrong_with_the_status_ends_nothing(tmp_path: Path) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("changed size during iteration")

    with Board(tmp_path / "gone", SERVER) as board:
        board.show(broken)
        time.sleep(1.2)
        board.show(dict)
        assert "the status cannot be told" in _read(tmp_path / "gone")["notes"][0]["text"]
        board.show(lambda: {"what": object()})
        for file in (tmp_path / "gone").iterdir():
            file.unlink()
        (tmp_path / "gone").rmdir()
        (tmp_path / "gone").write_text("a file")
        board.note("more")


def test_a_site_tells_what_it_does_and_what_it_refused() -> None:
    doing, noted = Doing("fl.example.org:9092"), list[str]()
    doing.hears()
    first = doing.connected
    doing.begins(2, "train")
    with pytest.raises(PolicyError), doing.refusing(noted.append):
        raise PolicyError("hours", "it is 12:00")
    assert (doing.round, doing.task) == (2, "train")
    doing.ends("r2-e4")
    assert doing.task is None
    assert doing.answered is not None
    assert (doing.answered["letter"], doing.answered["task"]) == ("r2-e4", "train")
    assert doing.refused is not None
    assert (doing.refused["rule"], doing.refused["why"]) == ("hours", "it is 12:00")
    assert noted == ["refused: policy rule 'hours': it is 12:00"]
    assert doing.connected == first
    assert utc(60) < utc()


def test_the_status_is_found_from_a_run_a_state_and_a_site(tmp_path: Path) -> None:
    for folder, named in (("run/federation", "run"), ("state", "state"), ("a/state", "a")):
        with Board(tmp_path / folder, SITE):
            pass
        assert find(tmp_path / named) == tmp_path / folder
    with pytest.raises(RunError, match=r"holds no status\.json"):
        find(tmp_path / "nowhere")
    (tmp_path / "state" / "status.json").write_text('{"pid": "x"}')
    with pytest.raises(RunError, match="cannot be read"):
        look(tmp_path / "state")


def test_a_process_is_stopped_as_ctrl_c_does(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "fl"
    with working(run / "federation") as process:
        found = look(run)
        assert found.alive
        assert [one.path for one in living(tmp_path)] == [run]
        assert stop(found, note=lambda text: None)
        assert process.wait() == 130
    assert not look(run).alive
    assert look(run).status["state"] == "stopped"
    assert living(tmp_path) == []
    assert not stop(found, note=lambda text: None)


def test_a_killed_process_is_not_taken_for_a_living_one(tmp_path: Path) -> None:
    with working(tmp_path / "federation") as process:
        process.kill()
        process.wait()
        found = look(tmp_path)
        assert (found.status["state"], found.alive) == ("running", False)


def test_nobody_else_is_stopped_who_has_its_number(tmp_path: Path) -> None:
    """Another process with this number, or one that does not hold the folder, is left alone."""
    with Board(tmp_path, SERVER):
        assert not look(tmp_path).alive
        with alone(tmp_path):
            assert look(tmp_path).alive
            status = _read(tmp_path)
            (tmp_path / "status.json").write_text(
                json.dumps({**status, "created": status["created"] - 60})
            )
            found = look(tmp_path)
            assert not found.alive
            assert not stop(found, note=lambda text: None)
