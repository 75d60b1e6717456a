"""The secret of a client that is not where its run is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.errors import PrivacyError, RunError
from atoll.noise import Vault


def _kept(path: Path) -> Vault:
    vault = Vault()
    vault.keep(path)
    return vault


def test_who_begins_again_has_the_same_noise_and_nobody_else(tmp_path: Path) -> None:
    key = _kept(tmp_path / "noise.key").key(3)
    assert _kept(tmp_path / "noise.key").key(3) == key
    assert _kept(tmp_path / "noise.key").key(4) != key
    assert _kept(tmp_path / "other.key").key(3) != key
    assert {path.name for path in tmp_path.iterdir()} == {"noise.key", "other.key"}
    assert (tmp_path / "noise.key").stat().st_mode & 0o77 == 0


def test_a_secret_that_was_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.key").write_bytes(b"short")
    with pytest.raises(PrivacyError, match=r"noise\.key is no secret of a client"):
        _kept(tmp_path / "noise.key")


def test_a_disk_that_refuses_leaves_no_secret_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(target))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(RunError, match=r"noise\.key"):
        _kept(tmp_path / "noise.key")
    assert list(tmp_path.iterdir()) == []
