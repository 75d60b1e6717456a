"""Whole files and whole lines, also where the disk is full."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from atoll.artifacts.export import export_adapter
from atoll.disk.files import (
    append_line,
    explained,
    write_json,
    write_text,
    write_whole,
)
from atoll.errors import RunError
from tests.support.models import Zoo
from tests.support.scenes import SUMMARY, scene

LIMIT = 4096
LONG = "x" * (4 * LIMIT)


def with_little_room(work: Callable[[], object], limit: int = LIMIT) -> str:
    """What `work` raises while files may hold so many bytes; empty when nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = ""
    # Python ignores the signal, so that a write beyond the limit is an error, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        work()
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return message


def test_the_room_is_little(tmp_path: Path) -> None:
    """A plain write is cut in the middle there; otherwise the tests below could not fail."""
    path = tmp_path / "plain"
    assert "File too large" in with_little_room(lambda: path.write_text(LONG))
    assert 0 < path.stat().st_size < len(LONG)
    assert with_little_room(lambda: (tmp_path / "small").write_text("x")) == ""


def test_a_file_that_does_not_fit_does_not_appear(tmp_path: Path) -> None:
    message = with_little_room(lambda: write_text(tmp_path / "new" / "f.txt", LONG))
    assert message.startswith(f"RunError: {tmp_path}/new/f.txt cannot be written: ")
    assert list((tmp_path / "new").iterdir()) == []


def test_the_file_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"final": 0.5})
    assert with_little_room(lambda: write_json(path, {"final": LONG})).startswith("RunError")
    assert json.loads(path.read_text()) == {"final": 0.5}
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("before", [0, 1, 20])
def test_only_whole_lines_stay(before: int, tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    lines = [{"round": number, "note": "y" * 100} for number in range(before)]
    for line in lines:
        append_line(path, line)
    message = with_little_room(lambda: append_line(path, {"round": 99, "note": LONG}))
    assert message.startswith(f"RunError: {path} cannot be written")
    kept = path.read_text().splitlines() if path.exists() else []
    assert [json.loads(line) for line in kept] == lines
    append_line(path, {"round": 100})
    assert json.loads(path.read_text().splitlines()[-1]) == {"round": 100}


def test_an_adapter_that_does_not_fit_leaves_the_old_one(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, model={"pooling": "mean"})
    folder = tmp_path / "adapter"
    export_adapter(setup, setup.start.server, folder, SUMMARY)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    message = with_little_room(
        lambda: export_adapter(setup, setup.start.server, folder, {**SUMMARY, "final": 0.9})
    )
    assert message.startswith(f"RunError: {folder}/adapter_model.safetensors cannot be written")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert load_file(folder / "adapter_model.safetensors")


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(partial: Path) -> None:
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "f", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_never_sees_half(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_text(path, "old")
    seen: list[str] = []

    def slow(partial: Path) -> None:
        partial.write_text("ne")
        seen.append(path.read_text())
        partial.write_text("new")

    write_whole(path, slow)
    assert seen == ["old"]
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space and run the same command again"),
        (errno.EDQUOT, "your disk quota is used up"),
        (errno.EROFS, "the file system is read-only; name another place"),
        (errno.EACCES, "you may not write there"),
        (errno.EFBIG, "it is larger than a file may be here"),
        (errno.EISDIR, "it is a folder; name a file"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_refusals_are_sentences(number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=words) as caught, explained(tmp_path / "f"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "f") in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("inside", "more/inside"):
        with pytest.raises(RunError, match="a part of this path is a file; name a place below"):
            write_text(tmp_path / "file" / name, "x")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_says_who_may_read(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "f", "x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == mode


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("old")
    (tmp_path / "link").symlink_to("real/f")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "f").read_text() == "new"
    (tmp_path / "dangling").symlink_to("real/g")
    write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "real" / "g").read_text() == "made"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    write_text(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(pipe.read_text)
        write_text(pipe, "through")
        assert reader.result(timeout=10) == "through"
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": float("nan"), "b": [float("inf"), 1.5]}, {"a": None, "b": [None, 1.5]}),
        ({"a": {1: (2, "é")}}, {"a": {"1": [2, "é"]}}),
        ({"a": None, "b": True}, {"a": None, "b": True}),
    ],
)  # fmt: skip
def test_json_is_json(value: Any, written: Any, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    write_json(tmp_path / "f.json", value)
    append_line(tmp_path / "f.jsonl", value)
    for name in ("f.json", "f.jsonl"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert json.loads(text, parse_constant=refuse) == written
        assert text.endswith("\n")
