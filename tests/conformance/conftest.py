"""Every property runs on every case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.conformance.cases import STAGES, cases, modules


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
