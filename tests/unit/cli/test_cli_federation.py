"""`atoll server` and `atoll client` refuse at once what could not be used later."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.cli.app import guarded

ROWS = '{"text": "reef", "label": "sea"}\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text(ROWS, encoding="utf-8")
    (tmp_path / "e.yaml").write_text("model: {name_or_path: m}\ndata: {path: d}\n", "utf-8")
    return tmp_path


CLIENT = "client --insecure --name site-a --connect localhost:9092 --data rows"


@pytest.mark.parametrize(("words", "code", "said"), [
    ("client --insecure --name site-a", 2, "--connect HOST:PORT and --data FOLDER are needed"),
    ("client --insecure --connect localhost:9092 --data rows", 2, "--insecure needs --name"),
    ("client --connect localhost:9092 --data rows", 2, "--certs is missing"),
    (f"{CLIENT} --certs c", 2, "leave it or --certs out"),
    (f"{CLIENT} --name ../site", 2, "is no name for a site"),
    (f"{CLIENT} --connect fl.example.org:9092", 2, "--insecure stays on this machine"),
    (f"{CLIENT} --connect localhost", 2, "write HOST:PORT"),
    (f"{CLIENT} --data nowhere", 3, "there is no file or folder nowhere"),
    (f"{CLIENT} --model nowhere", 4, "there is no folder nowhere"),
    (f"{CLIENT} --set train.device", 2, "write KEY=VALUE"),
    ("server e.yaml", 2, "--certs is missing"),
    ("server e.yaml --insecure", 2, "--insecure needs --clients"),
    ("server e.yaml --insecure --clients a --certs c", 2, "leave it or --certs out"),
    ("server e.yaml --insecure --clients a,../b", 2, "is no name for a site"),
    ("server e.yaml --insecure --clients a,A", 2, "twice"),
    ("server e.yaml --insecure --clients a --listen 0.0.0.0:9092", 2, "stays on this machine"),
    ("server other.yaml --insecure --clients a", 2, "no such file"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_at_once(
    words: str, code: int, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(words.split()) == code
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert {path.name for path in place.iterdir()} == {"rows", "e.yaml"}
