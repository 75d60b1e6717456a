"""What the documentation says is what the code does: its reference, its snippets, its links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import Zoo
from tests.support.scenes import scene

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_page_of_the_experiment_file_is_what_atoll_schema_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "atoll", "schema"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    page = (ROOT / "docs" / "experiment-file.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(.*?)```", page, flags=re.DOTALL)
    assert block.strip() == printed.strip()


def test_the_written_algorithm_is_found_from_the_experiment_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "writing-an-algorithm.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (named,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
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


def test_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    scene(tmp_path, zoo, model={"pooling": "mean"})
    (tmp_path / "experiment.yaml").rename(tmp_path / "classify.yaml")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "python.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["0", "1", "2"]
    assert "'local': " in said[3]
    assert "'prediction': " in said[4]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_every_method_of_the_papers_table_has_its_file() -> None:
    rows = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:atoll|tests)/[^`]+)`", rows)
    assert len(files) > 20
    assert not [name for name in files if not (ROOT / name).exists()]
