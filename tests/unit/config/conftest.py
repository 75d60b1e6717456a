"""Files that are refused, and the words of the refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.config import load
from atoll.errors import ConfigError


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A function from a file's text and overrides to the lines of the error."""
    monkeypatch.chdir(tmp_path)

    def refused(text: str, *overrides: str) -> list[str]:
        Path("f.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load("f.yaml", overrides=overrides)
        return str(caught.value).split("\n")

    return refused
