"""Every property runs on every case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conformance.cases import STAGES, cases, modules
from tests.conformance.tiny import CLIENTS, rows_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case`: all stage lists; `plain_case`: none; `module`: the algorithm files."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", list(cases(*STAGES)), ids=str)
    if "plain_case" in metafunc.fixturenames:
        metafunc.parametrize("plain_case", list(cases("plain")), ids=str)
    if "module" in metafunc.fixturenames:
        metafunc.parametrize("module", modules())


@pytest.fixture(autouse=True)
def _untouched_global_randomness() -> Iterator[None]:
    """Nothing seeds or draws from the global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(autouse=True, scope="module")
def _where_the_server_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Holds the clean rows that examples of algorithms name."""
    folder: Path = tmp_path_factory.mktemp("server")
    rows = [row for client in CLIENTS for row in rows_of(client, "root", 3)]
    texts = [{"text": " ".join(map(str, row.ids)), "label": "xyz"[int(row.target[0])]}
             for row in rows]  # fmt: skip
    (folder / "root.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
