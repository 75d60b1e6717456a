"""A federation as `atoll certs init` makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.certs.begin import begin


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    folder = tmp_path / "federation"
    begin(folder, ["fl.example.org", "10.0.0.5"], ["hospital-a", "hospital-b"], None)
    return folder
