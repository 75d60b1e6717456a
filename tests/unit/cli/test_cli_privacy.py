"""`atoll privacy` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.accounting import Everyone, Fixed, InTurns, Poisson, Release, Sampling, Shared
from atoll.cli.app import guarded
from atoll.ledger import Entry, Ledger

DELTA = 1e-5


def _entry(exchange: int, sampling: Sampling, noise: float = 2.0) -> Entry:
    release = Release(unit="client", noise_multiplier=noise, sampling=sampling)
    return Entry(
        run="0123456789ab", round=exchange, exchange=exchange, noise=str(exchange), release=release
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's directory with a ledger of two releases."""
    monkeypatch.setenv("COLUMNS", "120")
    with Ledger.opened(tmp_path / "run" / "privacy", data="f" * 64) as ledger:
        ledger.write(_entry(1, Poisson(rate=0.25)), DELTA)
        ledger.write(_entry(2, Everyone()), DELTA)
    return tmp_path / "run"


@pytest.mark.parametrize("place", [".", "privacy", "privacy/ledger.jsonl"])
def test_a_ledger_is_found_and_shown(
    place: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(["privacy", "show", str(run / place)]) == 0
    said = capsys.readouterr().out
    assert "coins of 0.25" in said
    assert "everyone" in said
    assert "01234567" in said
    assert "Whole: 2 releases of 1 run on data ffffffffffff come to epsilon" in said
    assert "at delta 1e-05, for whole clients, add-or-remove-one." in said


def test_neighbours_with_zeros_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Release(unit="example", noise_multiplier=2.0, sampling=Poisson(rate=0.25))
    entries = {"turns": _entry(1, InTurns()),
               "rows": _entry(1, Everyone()).model_copy(update={"release": rows})}  # fmt: skip
    for name, entry in entries.items():
        with Ledger.opened(tmp_path / name, data="d") as ledger:
            ledger.write(entry, DELTA)
        assert guarded(["privacy", "show", str(tmp_path / name)]) == 0
        said = capsys.readouterr().out
        assert ("in turns" in said) == (name == "turns")
        whom = "whole clients" if name == "turns" else "single rows"
        assert f"at delta 1e-05, for {whom}, zero-out." in said
        assert guarded(["privacy", "verify", str(tmp_path / name), "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["adjacency"] == "zero-out"


def test_json_says_what_is_spent(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["privacy", "verify", str(run), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["releases"], found["runs"], found["unit"]) == (2, ["0123456789ab"], "client")
    assert guarded(["privacy", "show", str(run), "--format", "json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert lines[-1]["epsilon"] == found["epsilon"] > lines[0]["epsilon"]


def test_fixed_sizes_and_no_noise_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger.opened(tmp_path, data="d") as ledger:
        ledger.write(_entry(1, Fixed(size=2, population=9)), DELTA)
        ledger.write(_entry(2, Everyone(), noise=0.0), DELTA)
    assert guarded(["privacy", "show", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "2 of 9" in said
    assert "come to epsilon without bound" in said


def test_readers_of_what_nothing_bounds_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Shared(mechanism="gaussian", norm=1.0, values=9, sigma=2.0, asked=2, survivors=1,
                 population=9)  # fmt: skip
    with Ledger.opened(tmp_path, data="d") as ledger:
        ledger.write(_entry(1, Everyone(), noise=0.0), DELTA)
        ledger.write(_entry(2, Everyone()).model_copy(update={"release": own}), DELTA)
    assert guarded(["privacy", "verify", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "against the server, and to epsilon without bound against readers of models" in said
    assert guarded(["privacy", "verify", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["readers_epsilon"] is None


def test_an_empty_ledger_spent_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger.opened(tmp_path, data="d"):
        pass
    assert guarded(["privacy", "verify", str(tmp_path)]) == 0
    assert "Nothing was released: epsilon is 0." in capsys.readouterr().out
    assert guarded(["privacy", "verify", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["epsilon"] == 0.0


def test_a_changed_ledger_and_none_at_all(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "privacy" / "ledger.jsonl"
    path.write_text(path.read_text().replace('"noise_multiplier":2.0', '"noise_multiplier":9.0'))
    assert guarded(["privacy", "verify", str(run)]) == 10
    assert "was changed before line 3" in capsys.readouterr().err.replace("\n", " ")
    assert guarded(["privacy", "show", str(run.parent)]) == 10
    said = capsys.readouterr().err.replace("\n", " ")
    assert "holds no ledger.jsonl: no run that promises an epsilon was there" in said
