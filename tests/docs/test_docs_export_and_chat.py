"""Every command and snippet of the page on export and chat, from top to bottom."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.finished import finish

if TYPE_CHECKING:
    from tests.support.models import Zoo

PAGE = Path(__file__).parents[2] / "docs" / "export-and-chat.md"


@pytest.fixture(scope="module")
def here(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in runs/finetune."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "runs").mkdir()
    finish(folder / "made", zoo, "llama").rename(folder / "runs" / "finetune")
    return folder


def test_the_page_is_what_happens(here: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```(bash|python)\n(.*?)```", text, flags=re.DOTALL)
    languages = [language for language, _ in blocks]
    assert (languages.count("bash"), languages.count("python")) == (5, 1)
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    outputs: list[str] = []
    for language, block in blocks:
        for command in block.splitlines() if language == "bash" else [block]:
            words = ["bash", "-c", command] if language == "bash" else [sys.executable, "-c", block]
            done = subprocess.run(
                words, cwd=here, env=environment, input="reef\n", capture_output=True, text=True,
                timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}: {done.stderr}"
            outputs.append(done.stdout)
    for folder in ("adapter", "merged", "small"):
        assert "## Use" in (here / folder / "README.md").read_text(encoding="utf-8")
    printed = json.loads(outputs[-1])
    (shown,) = re.findall(r"`(\{\"turn\".*?)`", text)
    example = json.loads(shown)
    assert printed.keys() == example.keys()
    assert printed["answers"].keys() == example["answers"].keys()
    assert printed["complete"].keys() == example["complete"].keys()


def test_the_tolerances_are_those_of_the_code() -> None:
    from atoll.trained.verified import EXACT, QUANTISED, ROUNDED

    rows = re.findall(r"\| .*\| (\d\S+) \|", PAGE.read_text(encoding="utf-8"))
    assert [float(number) for number in rows] == [EXACT, ROUNDED, QUANTISED]
