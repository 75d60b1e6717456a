"""A folder as a user has one: models, clients' rows, experiment files; and the command itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.models import Zoo

ATOLL = str(Path(sys.executable).with_name("atoll"))
TEXTS = {
    "sea": ["wave reef coral", "tide fish", "whale drift wave", "reef net boat", "coral fish"],
    "sky": ["sun moon star", "wind gull", "storm rain sun", "moon wind", "star gull storm"],
    "land": ["palm sand dune", "shore island", "sand rope dune", "island palm", "dune shore sand"],
}
CLIENTS = {"ada": {"sea": 8, "sky": 4}, "bob": {"sky": 5, "land": 3}, "cy": {"land": 4, "sea": 3}}


@dataclass(frozen=True)
class Folder:
    """Where a user works."""

    path: Path

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`atoll WORDS`, typed here."""
        return subprocess.run(
            [ATOLL, *words], cwd=self.path, env=environment(), capture_output=True, text=True,
            timeout=300, check=False, **options,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`atoll WORDS`, not waited for."""
        return subprocess.Popen(
            [ATOLL, *words], cwd=self.path, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def json(self, path: str) -> Any:
        """A JSON file here."""
        return json.loads((self.path / path).read_text(encoding="utf-8"))

    def lines(self, path: str) -> list[Any]:
        """A JSONL file here."""
        text = (self.path / path).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def names(self, path: str) -> set[str]:
        """What a folder here holds, hidden files too."""
        return {item.name for item in (self.path / path).iterdir()}


def environment() -> dict[str, str]:
    """One thread, no network, a wide terminal."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rows_of(counts: dict[str, int]) -> list[dict[str, str]]:
    """So many rows of each label, the texts in turn."""
    return [
        {"text": TEXTS[label][i % len(TEXTS[label])], "label": label}
        for label, count in counts.items()
        for i in range(count)
    ]


def _encoder(source: str, path: Path) -> None:
    """The tiny BERT as an encoder with all its weights: a masked LM's folder lacks the pooler."""
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(source).save_pretrained(path)
    AutoTokenizer.from_pretrained(source).save_pretrained(path)


@pytest.fixture(scope="module")
def folder(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Clients' folders, a common test set, prompts, and two experiment files on tiny models."""
    path = tmp_path_factory.mktemp("user")
    _encoder(zoo("bert"), path / "bert")
    for client, counts in CLIENTS.items():
        write_rows(path / "data" / client / "train.jsonl", rows_of(counts))
        prompts = [{"prompt": row["text"], "completion": " " + row["label"]}
                   for row in rows_of(counts)]  # fmt: skip
        write_rows(path / "prompts" / client / "train.jsonl", prompts)
    write_rows(path / "data" / "test.jsonl", rows_of({"sea": 4, "sky": 4, "land": 4}))
    (path / "labels.yaml").write_text(
        f"model: {{name_or_path: {path / 'bert'}, pooling: mean}}\n"
        "data:\n"
        "  path: data/\n"
        "  max_length: 8\n"
        "federation: {num_rounds: 1, clients_per_round: 2}\n"
    )
    (path / "words.yaml").write_text(
        f"model: {{name_or_path: {zoo('llama')}, task: causal-lm}}\n"
        "data: {path: prompts/, max_length: 32}\n"
        "federation: {num_rounds: 1}\n"
        "evaluate: {baselines: [local]}\n"
    )
    return Folder(path)
