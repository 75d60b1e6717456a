"""Every block of every page is typed, run, loaded or looked at: no page says what nobody tried."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pages import Reader, blocks, commands, inline, pages
from tests.support.readers import READERS, Models

if TYPE_CHECKING:
    from tests.support.gallery import Gallery
    from tests.support.models import Zoo

PAGES = pages()
TYPED, SHOWN = {"bash", "python", "yaml"}, {"text"}
RECIPES = [name for name in PAGES if name.startswith("docs/recipes/")]
TABLE = re.compile(r"^\S+ +(common test set|all held-out rows) .*$", flags=re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_a_block_is_typed_or_only_shown_and_says_which(name: str) -> None:
    for block in blocks(PAGES[name]):
        where = f"{name}:{block.line}"
        assert block.language in TYPED | SHOWN, f"{where}: say what it is: {TYPED | SHOWN}"
        if block.language in SHOWN:
            typed = re.findall(r"^(?:\$ )?(?:atoll|pip|make|python) .*", block.text, re.MULTILINE)
            assert not typed, f"{where}: {typed[0]} is a command; put it into a block of bash"


def test_pages_with_something_to_type_have_a_reader() -> None:
    typed = {
        name for name, path in PAGES.items()
        if any(block.language in TYPED for block in blocks(path))
    }  # fmt: skip
    assert typed == READERS.keys(), "say in tests/support/readers.py what its reader has"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings(
    "ignore:`past_key_values` is deprecated:FutureWarning",
    "ignore:`is_gradient_checkpointing`:FutureWarning",
)
def test_a_page_can_be_followed_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zoo: Zoo, gallery: Gallery
) -> None:
    from huggingface_hub import constants

    if name == "docs/homomorphic.md":
        pytest.importorskip("tenseal")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    # The pages show tables as wide terminals do; in a narrow one a head is folded.
    monkeypatch.setenv("COLUMNS", "100")
    reader = READERS[name](Models(zoo, gallery))
    reader.follow(PAGES[name])
    assert reader.said or name in ("docs/fewer-bytes.md", "docs/runtimes.md")
    _shows_what_is_printed(reader, name)
    if name in RECIPES:
        _holds_what_it_promises(Path("runs") / Path(name).stem)
    if name in OWN:
        OWN[name](reader)


def _shows_what_is_printed(reader: Reader, name: str) -> None:
    """The columns of a table that is shown are those of the table that is printed."""
    shown = [TABLE.search(block.text) for block in blocks(PAGES[name]) if block.language == "text"]
    heads = [_columns(found[0]) for found in shown if found]
    printed = [found for text in reader.said.values() if (found := TABLE.search(text))]
    for head in heads:
        assert printed, f"{name} shows the end of a run, and nothing is run"
        assert head == _columns(printed[0][0])


def _columns(head: str) -> list[str]:
    """Without the metric, and whatever the rows are that all arms share."""
    return re.split(r" {2,}", head.strip())[2:]


def _holds_what_it_promises(run: Path) -> None:
    """The run has ended with numbers, an adapter that says how it is loaded, and a report."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    arms = (summary["final"], *summary["baselines"].values())
    assert all(math.isfinite(value) for value in arms)
    assert {"federated", "local", "pooled"} <= summary["own"].keys()
    assert "from_pretrained" in (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert (run / "report.html").stat().st_size > 10_000
    merged = Path("merged")
    assert run.name == "quickstart" or (merged / "model.safetensors").is_file()


def _predicted(reader: Reader, words: str) -> Any:
    (said,) = [out for command, out in reader.said.items() if command.startswith(words)]
    return json.loads(said)["prediction"]


def _python_of(reader: Reader) -> str:
    (said,) = [out for where, out in reader.said.items() if ".md:" in where]
    return said.strip()


def _plain_lines_agree(reader: Reader) -> None:
    """Python without Atoll says what `atoll predict` says."""
    assert _python_of(reader) == _predicted(reader, "atoll predict")


def _python_page(reader: Reader) -> None:
    said = _python_of(reader).splitlines()
    assert [line.split()[0] for line in said[:3]] == ["0", "1", "2"]
    assert "'local': " in said[3]
    assert "'prediction': " in said[4]


def _three_numbers(reader: Reader) -> None:
    assert len(re.findall(r"\d\.\d+", _python_of(reader))) == 4


def _three_runs(reader: Reader) -> None:
    """One that was extended, and a fork of it beside it."""
    rounds = {path.parent.name: len(path.read_text(encoding="utf-8").splitlines())
              for path in Path("runs").glob("*/rounds.jsonl")}  # fmt: skip
    assert rounds == {"classify": 5, "classify-2": 5}


def _chat_in_json(reader: Reader) -> None:
    """One line of JSON a turn, with the keys that the page shows; cards beside each export."""
    text = PAGES["docs/export-and-chat.md"].read_text(encoding="utf-8")
    (shown,) = re.findall(r"`(\{\"turn\".*?)`", text)
    (said,) = [out for out in reader.said.values() if out.startswith('{"turn"')]
    example, printed = json.loads(shown), json.loads(said)
    assert printed.keys() == example.keys()
    assert printed["answers"].keys() == example["answers"].keys()
    assert printed["complete"].keys() == example["complete"].keys()
    for folder in ("adapter", "merged", "small"):
        assert "## Use" in (Path(folder) / "README.md").read_text(encoding="utf-8")


def _two_federations(reader: Reader) -> None:
    """Both ended with a model of both sites; one of them had trained under TLS."""
    for run, rounds in (("classify", 0), ("secured", 1)):
        folder = Path("runs") / run
        lines = (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["round"] for line in lines] == list(range(rounds + 1))
        assert (folder / "adapter" / "README.md").is_file()
        clients = (folder / "clients.jsonl").read_text(encoding="utf-8").splitlines()
        sites = {json.loads(line)["client"]: json.loads(line) for line in clients}
        assert sites.keys() == {"hospital-a", "hospital-b"}
        assert all(math.isfinite(site["federated"]) for site in sites.values())
    (record,) = [out for words, out in reader.said.items() if "egress verify" in words]
    assert "whole" in record


OWN = {
    "docs/deployment.md": _two_federations,
    "docs/export-and-chat.md": _chat_in_json,
    "docs/python.md": _python_page,
    "docs/recipes/classify.md": _plain_lines_agree,
    "docs/recipes/embed.md": _three_numbers,
    "docs/recipes/vision.md": _plain_lines_agree,
    "docs/resume.md": _three_runs,
}
"""What else is to be seen at the end of a page."""


def test_blocks_and_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a `b c`\n```bash\n# no\natoll run \\\n  x  # yes\n```\n\n```text\ny\n```\n")
    found = blocks(page)
    assert [(block.language, block.line) for block in found] == [("bash", 2), ("text", 8)]
    assert [shlex.split(one, comments=True) for one in commands(found[0].text)] == [
        ["atoll", "run", "x"]
    ]
    assert inline(page) == ["b c"]
