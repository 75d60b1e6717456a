"""`atoll report` as it is typed, and the text summary that `atoll run` prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.cli.app import guarded
from atoll.cli.summary_text import show_run
from tests.unit.report.scenes import clients, run_folder, summary_of


def test_a_report_is_written_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run")
    assert guarded(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"Wrote {run}/report.html; open it in a browser.\n"
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_json_says_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, output = run_folder(tmp_path / "run", finished=False), tmp_path / "page.html"
    with (run / "rounds.jsonl").open("a") as stream:
        stream.write("{")
    assert guarded(["report", str(run), "--format", "json", "-o", str(output)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run": str(run),
        "report": str(output),
        "finished": False,
        "rounds": 5,
        "notes": ["line 6 of rounds.jsonl is cut off and left out"],
    }
    assert output.is_file()
    assert not (run / "report.html").exists()


def test_an_unfinished_run_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", finished=False)
    (run / "run.json").unlink()
    assert guarded(["report", str(run)]) == 0
    found = capsys.readouterr()
    assert found.err == "Note: run.json is missing: versions are not known.\n"
    assert found.out == (
        f"Wrote {run}/report.html of a run that is not finished (after round 4); open it in a "
        "browser.\n"
    )


@pytest.mark.parametrize("command", [["report"], ["report", "a", "b"]])
def test_a_wrong_command_line_is_2(command: list[str]) -> None:
    assert guarded(command) == 2


def test_a_run_that_cannot_be_read_is_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["report", str(tmp_path / "x")]) == 6
    assert "there is no run directory" in capsys.readouterr().err


def test_the_reader_loads_no_torch(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    code = (
        "import sys\nfrom atoll.cli.app import guarded\n"
        "assert guarded(['report', sys.argv[1]]) == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, capture_output=True)


def test_the_text_summary_fits_on_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    show_run(summary_of(clients(["ada", "bob"])), Path("runs/x"), common_test=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "accuracy"
    titles = ("common test set", "own rows: mean", "worst client", "worst 10%",
              "spread")  # fmt: skip
    assert [title for title in titles if title in lines[0]] == list(titles)
    rows = [line.split() for line in lines[2:5]]
    assert rows[0] == ["federated", "0.812", "0.750", "0.500", "0.550",
                       "0.080"]  # fmt: skip
    assert rows[1][:3] == ["local", "only", "0.500"]
    assert "Federated: 0.812 (95% interval 0.700 to 0.900)." in lines
    assert "Federated minus local only: +0.312 (95% interval +0.250 to +0.375)." in lines
    assert "  atoll report runs/x" in lines


def test_a_report_that_is_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_folder(Path("runs/x"))
    assert guarded(["report", "runs/x"]) == 0
    capsys.readouterr()
    show_run(summary_of(clients(["ada"])), run, common_test=True)
    out = capsys.readouterr().out
    assert "Everything is in runs/x; look at runs/x/report.html in a browser\n" in out
    assert "atoll report" not in out
