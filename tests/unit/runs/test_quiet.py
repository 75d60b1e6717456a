"""A server that is at work for long says so, also where nobody is waited for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from atoll.runs import quiet
from atoll.runs.board import on_board
from atoll.runs.where import Observer


def heard(told: list[str], number: int) -> None:
    end = time.monotonic() + 20
    while len(told) < number:
        assert time.monotonic() < end, told
        time.sleep(0.01)


def test_long_work_is_told_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "LOOK", 0.01)
    monkeypatch.setattr(quiet, "LONG", 0.1)
    told = list[str]()
    with on_board(tmp_path, 3, Observer(note=told.append)) as (observer, _):
        heard(told, 2)
        assert set(told) == {"at work: loading what is needed, or writing what was done"}
        observer.step("round 2: train", 1, 3)
        heard(told, 4)
        assert told[-1] == "at work on round 2: train: 1 of 3"
    log = (tmp_path / "federation" / "server.log").read_text()
    assert "Z at work on round 2: train: 1 of 3\n" in log


def test_nothing_is_added_to_what_others_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "LOOK", 0.01)
    now = [0.0]
    monkeypatch.setattr(quiet, "monotonic", lambda: now[0])
    told = list[str]()
    with on_board(tmp_path, 3, Observer(note=told.append)) as (observer, _):
        for _ in range(20):
            now[0] += quiet.LONG - 1
            observer.note("1 of 2 have answered")
            time.sleep(0.02)
        assert set(told) == {"1 of 2 have answered"}
        now[0] += quiet.LONG + 1
        heard(told, 21)
