"""A folder appears whole, replaces an earlier one in one step, and leaves nothing behind."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atoll.disk.folder import free_place, new_folder
from atoll.errors import RunError
from tests.unit.disk.test_files import with_little_room


def fill(folder: Path, text: str) -> None:
    (folder / "inner").mkdir()
    (folder / "atoll.json").write_text(text)
    (folder / "inner" / "file").write_text(text)


def export(place: Path, text: str, *, force: bool = False) -> None:
    with new_folder(free_place(place, force=force)) as folder:
        fill(folder, text)


def interrupted(place: Path) -> None:
    with new_folder(place) as folder:
        fill(folder, "two")
        raise KeyboardInterrupt


def said(place: Path) -> set[str]:
    return {(place / "atoll.json").read_text(), (place / "inner" / "file").read_text()}


def test_it_appears_with_the_rights_of_new_files(tmp_path: Path) -> None:
    place = tmp_path / "new" / "below"
    export(place, "one")
    assert said(place) == {"one"}
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("")
    for ours, plain in ((place, "plain"), (place / "inner" / "file", "plain/file")):
        assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE((tmp_path / plain).stat().st_mode)
    assert os.listdir(tmp_path / "new") == ["below"]


def test_an_earlier_export_stays_unless_forced(tmp_path: Path) -> None:
    export(tmp_path / "m", "one")
    with pytest.raises(RunError, match="holds an earlier export; name another place, or add --for"):
        export(tmp_path / "m", "two")
    assert said(tmp_path / "m") == {"one"}
    export(tmp_path / "m", "two", force=True)
    assert said(tmp_path / "m") == {"two"}
    assert os.listdir(tmp_path) == ["m"]


def test_other_files_stay_even_if_forced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("text")
    with pytest.raises(RunError, match="holds files that are not of an export"):
        free_place(tmp_path / "thesis", force=True)
    with pytest.raises(RunError, match="is a file; name a folder"):
        free_place(tmp_path / "thesis" / "chapter", force=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(RunError, match="name another place"):
        export(tmp_path / "loop", "one", force=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "text"


def test_an_empty_folder_is_a_free_place_and_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    export(tmp_path / "link", "one")
    assert said(tmp_path / "empty") == {"one"}
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("platform", ["linux", "another system"])
def test_what_fails_leaves_the_earlier_one(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    export(tmp_path / "m", "one")
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "m")
    assert said(tmp_path / "m") == {"one"}
    export(tmp_path / "m", "three", force=True)
    assert said(tmp_path / "m") == {"three"}
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take two steps")
def test_it_is_replaced_in_one_step(tmp_path: Path) -> None:
    """A reader that never rests finds the old or the new one, and never nothing."""
    place = tmp_path / "m"
    export(place, "0")
    missing: list[OSError] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                (place / "atoll.json").read_text()
            except OSError as error:
                missing.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        export(place, str(number), force=True)
    over.set()
    reader.join()
    assert missing == []
    assert said(place) == {"99"}


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    def plain() -> None:
        with new_folder(tmp_path / "m") as folder:
            (folder / "file").write_text("x" * 100_000)

    def tensors() -> None:
        with new_folder(tmp_path / "m") as folder:
            save_file({"a": torch.zeros(100_000)}, folder / "a.safetensors")

    for work in (plain, tensors):
        message = with_little_room(work)
        assert message.startswith(f"RunError: {tmp_path}/m cannot be written: it is larger than")
        assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a part of this path is a file"):
        export(tmp_path / "file" / "m", "one")
    with pytest.raises(RunError, match="cannot be written"):
        export(Path("/proc/m"), "one")
