"""`atoll status`, `stop`, `logs` and `client pause`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread

import pytest

from atoll.cli.app import guarded
from atoll.cli.federation import with_port
from atoll.policy import paused
from tests.support.working import working


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return Path("runs/fl")


def test_a_server_is_shown_followed_and_stopped(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with working(run / "federation") as process:
        assert guarded(["status"]) == 0
        told = capsys.readouterr().out
        assert "runs/fl: server running" in told
        assert "round 2: train: 1 of 2 have answered, 2 are needed" in told
        rows = [line.split() for line in told.splitlines() if line.startswith("hospital")]
        assert [row[:2] for row in rows] == [["hospital-a", "working"], ["hospital-b", "not"]]
        # What a client says is no markup.
        assert "rule [hours]: no" in told
        assert guarded(["status", "--format", "json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["path"], found["alive"], found["pid"]) == (str(run), True, process.pid)

        follower = Thread(target=guarded, args=(["logs", str(run), "-f", "-n", "1"],))
        follower.start()
        assert guarded(["stop", str(run)]) == 0
        follower.join()
        said = capsys.readouterr()
        assert process.wait() == 130
    lines = [line.partition(" ")[2] for line in said.out.splitlines()]
    assert lines in (["line 2", "stopped"], ["stopped"])
    assert "stopped; the log is runs/fl/federation/server.log" in said.err

    assert guarded(["stop", str(run)]) == 0
    assert "nothing runs in runs/fl; it has stopped at 20" in capsys.readouterr().err
    assert guarded(["status", str(run)]) == 0
    assert "server stopped" in capsys.readouterr().out
    assert guarded(["status"]) == 0
    assert "No server runs" in capsys.readouterr().err
    assert guarded(["logs", str(run), "-n", "0"]) == 0
    assert capsys.readouterr().out == ""


def test_a_killed_server_is_told_as_killed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with working(run / "federation") as process:
        process.kill()
        process.wait()
        assert guarded(["status", str(run)]) == 0
        assert "server killed, last seen" in capsys.readouterr().out
        assert guarded(["stop", str(run)]) == 0
        assert "was killed after 20" in capsys.readouterr().err


def test_a_site_is_shown_and_paused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with working(Path("site/state"), "site"):
        for words in (["status", "site"], ["client", "status", "--certs", "site"]):
            assert guarded(words) == 0
            told = capsys.readouterr().out
            assert "hospital-a to fl.example.org:9092: connected since" in told
            assert "3 messages with 1.2 MB left in all" in told
            assert "hours: it is 12:00" in told
        for words, state in ((["pause", "--certs", "site"], True),
                             (["pause", "--state", "site/state"], True),
                             (["resume", "--state", "site/state"], False),
                             (["resume", "--certs", "site"], False)):  # fmt: skip
            assert guarded(["client", *words]) == 0
            assert paused(Path("site/state")) is state
    capsys.readouterr()
    for words in (["pause"], ["pause", "--state", "gone"], ["status", "--certs", "gone"]):
        assert guarded(["client", *words]) == 2
    assert guarded(["logs", "gone"]) == 6
    assert "holds no status.json" in capsys.readouterr().err


def test_a_page_needs_no_port() -> None:
    assert with_port(["server", "f.yaml", "--ui"]) == ["server", "f.yaml", "--ui", "0"]
    assert with_port(["client", "--ui", "--data", "d"]) == ["client", "--ui", "0", "--data", "d"]
    assert with_port(["server", "--ui", "8000", "f"]) == ["server", "--ui", "8000", "f"]
    assert with_port([]) == []
    assert with_port(["server", "--ui=8000"]) == ["server", "--ui=8000"]
