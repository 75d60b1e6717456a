"""Pages that hold what the code also holds: the reference, an algorithm, tolerances, papers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.pages import ROOT, blocks

DOCS = ROOT / "docs"
IDENTIFIER = re.compile(r"\b\d{4}\.\d{5}\b")


def test_the_page_of_the_experiment_file_is_what_atoll_schema_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from atoll.cli.app import guarded

    assert guarded(["schema"]) == 0
    (block,) = blocks(DOCS / "experiment-file.md")
    assert block.text.strip() == capsys.readouterr().out.strip()


def test_the_page_of_the_policy_is_what_atoll_schema_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from atoll.cli.app import guarded

    assert guarded(["schema", "--policy"]) == 0
    shown = [block.text.strip() for block in blocks(DOCS / "policy.md")]
    assert capsys.readouterr().out.strip() in shown


def test_the_written_algorithm_is_found_from_the_experiment_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {block.language: block.text for block in blocks(DOCS / "writing-an-algorithm.md")}
    code, named = found["python"], found["yaml"]
    (tmp_path / "my_methods.py").write_text(code, encoding="utf-8")
    file = tmp_path / "e.yaml"
    file.write_text(f"model: {{name_or_path: m}}\ndata: {{path: d}}\n{named}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    from atoll.config import load, resolve

    loaded = load(file)
    bound = resolve(
        loaded.experiment.federation.algorithm, package="atoll.algorithms", where=loaded.where
    )
    assert bound.func.__name__ == "my_prox"
    assert bound.keywords["mu"] == 0.1


def test_the_tolerances_are_those_of_the_code() -> None:
    from atoll.trained.verified import EXACT, QUANTISED, ROUNDED

    page = (DOCS / "export-and-chat.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]*\| (\d\S+) \|$", page, re.MULTILINE)
    assert [float(number) for number in rows] == [EXACT, ROUNDED, QUANTISED]


def _papers() -> list[list[str]]:
    """The rows of the table: method, paper, file, test."""
    lines = (DOCS / "papers.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return rows[2:]


def test_every_method_of_the_papers_table_has_its_file_and_its_test() -> None:
    rows = _papers()
    assert len(rows) > 30
    for method, _, files, tests in rows:
        for column, folder in ((files, "atoll/"), (tests, "tests/")):
            named = re.findall(r"`([^`]+)`", column)
            assert named, method
            assert all(name.startswith(folder) and (ROOT / name).exists() for name in named), method


def test_every_paper_that_the_code_names_is_in_the_table() -> None:
    listed = {found for row in _papers() for found in IDENTIFIER.findall(row[1])}
    named = {
        found: path.name
        for path in (ROOT / "atoll").rglob("*.py")
        for found in IDENTIFIER.findall(path.read_text(encoding="utf-8"))
    }
    assert {found: name for found, name in named.items() if found not in listed} == {}
