"""Kills, cuts and full disks: what left is in the record, and the record is whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from atoll.egress.lines import Sent
from atoll.egress.read import read
from atoll.egress.verify import verify
from atoll.errors import EgressError, RunError
from tests.support.departures import departure, open_record, recorded, site
from tests.unit.disk.test_files import with_little_room

ROOT = Path(__file__).parents[3]
FIRST = "egress-0001.jsonl"


def killed(folder: Path, plan: Sequence[float | str | None]) -> list[list[int]]:
    """What the record was after each start."""
    command = [sys.executable, "-m", "tests.support.egress_crash", str(folder), json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: list[list[int]] = json.loads(done.stdout)
    return found


def all_that_left_is_there(folder: Path) -> None:
    lines = [line for line in read(folder / "record", ()) if isinstance(line, Sent)]
    known = {(line.run, line.sha256) for line in lines}
    left = [line.split(b" ", 1) for line in (folder / "left").read_bytes().splitlines()]
    assert left
    assert {(run.decode(), hashlib.sha256(data).hexdigest()) for run, data in left} <= known
    # A kill between line and departure leaves a line of what did not leave: one a kill.
    assert len(lines) - len(left) <= len({line.run for line in lines})


def test_kills_at_random_instants(tmp_path: Path) -> None:
    chance = random.Random(0)
    plan = [chance.uniform(0.001, 0.06) for _ in range(25)]
    found = killed(tmp_path, [*plan, None])
    assert [code for code, *_ in found][-1] == 0
    assert -signal.SIGKILL in [code for code, *_ in found]
    all_that_left_is_there(tmp_path)


def test_kills_at_every_step_to_the_disk(tmp_path: Path) -> None:
    last = {"fsync": 16, "replace": 6, "open": 5}
    plan = [f"{call}:{number}" for call in last for number in range(1, last[call])]
    found = killed(tmp_path, [*plan, None])
    assert {code for code, *_ in found[:-1]} == {-signal.SIGKILL}
    assert found[-1][0] == 0
    all_that_left_is_there(tmp_path)


def states(folder: Path, *, large: int) -> list[dict[str, bytes]]:
    """The files of a record after the head was written the first time, and after each message."""
    found = []
    who = site("hospital-a")
    for number in range(5):
        with open_record(folder, who, large=large) as egress:
            if number:
                egress.append(departure(number))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    return found


def put(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("large", [2**20, 2000])
def test_a_write_that_was_cut_anywhere_is_no_tampering(large: int, tmp_path: Path) -> None:
    """The head of before, and any first part of what was written after it."""
    who, folder = site("hospital-a"), tmp_path / "state"
    known = states(tmp_path / "made", large=large)
    cut = 0
    for before, after in pairwise(known):
        (grown,) = [name for name in after if name.endswith("jsonl") and
                    len(after[name]) > len(before.get(name, b""))][-1:]  # fmt: skip
        start, end = len(before.get(grown, b"")), len(after[grown])
        if grown not in before:
            end = after[grown].index(b"\n") + 1
        for size in (start, start + 1, (start + end) // 2, end - 1, end):
            put(folder, {**before, grown: after[grown][:size]})
            found = verify(folder, who.certificate)
            assert found.unfinished == (0 if size == end else size - start)
            with open_record(folder, who, large=large) as egress:
                egress.append(departure(9))
            again = verify(folder, who.certificate)
            assert again.unfinished == 0
            assert again.cuts == (start < size < end)
            cut += again.cuts
            assert again.messages == found.messages + 1
    assert cut == 12


def test_a_record_that_had_just_begun(tmp_path: Path) -> None:
    who = site("hospital-a")
    open_record(tmp_path / "made", who).close()
    line = (tmp_path / "made" / FIRST).read_bytes()
    shutil.rmtree(tmp_path / "made")
    with pytest.raises(RunError, match="there is no record"):
        verify(tmp_path / "made")
    # The first head is written before the first line, and is shorter.
    message = with_little_room(lambda: open_record(tmp_path / "made", who), 600)
    assert message.startswith(f"RunError: {tmp_path / 'made' / FIRST} cannot be written: ")
    assert verify(tmp_path / "made", who.certificate).lines == 0
    for size in (0, 10, len(line) - 1):
        (tmp_path / "made" / FIRST).write_bytes(line[:size])
        assert verify(tmp_path / "made", who.certificate).unfinished == size
    head = (tmp_path / "made" / "egress.head").read_bytes()
    for size in (0, 10, len(line) - 1, len(line)):
        put(tmp_path / "made", {FIRST: line[:size], "egress.head": head})
        open_record(tmp_path / "made", who).close()
        found = verify(tmp_path / "made", who.certificate)
        assert (found.cuts, found.messages) == (0 < size < len(line), 0)


def test_zeros_after_a_power_cut_are_cut_off(tmp_path: Path) -> None:
    who = recorded(tmp_path, range(2))
    with (tmp_path / FIRST).open("ab") as stream:
        stream.write(b"\0" * 4096)
    assert verify(tmp_path).unfinished == 4096
    open_record(tmp_path, who).close()
    cut = json.loads((tmp_path / FIRST).read_bytes().splitlines()[-1])
    assert (cut["kind"], cut["bytes"]) == ("cut", 4096)
    assert cut["sha256"] == hashlib.sha256(b"\0" * 4096).hexdigest()
    assert verify(tmp_path).cuts == 1


def test_a_piece_of_a_line_under_a_key_that_was_renewed_meanwhile(tmp_path: Path) -> None:
    recorded(tmp_path, range(2))
    whole = (tmp_path / FIRST).read_bytes()
    head = (tmp_path / "egress.head").read_bytes()
    recorded(tmp_path, [2])
    longer = (tmp_path / FIRST).read_bytes()
    for size in (len(whole) + 10, len(longer)):
        put(tmp_path, {FIRST: longer[:size], "egress.head": head})
        with open_record(tmp_path, site("hospital-a", 1)) as egress:
            egress.append(departure(3))
        found = verify(tmp_path)
        assert (found.files, found.cuts, found.messages) == (2, 1, 3)


@pytest.mark.parametrize("what", ["removed", "shorter", "longer", "head", "no-head", "other-file"])
def test_no_departure_on_a_record_whose_end_was_changed(what: str, tmp_path: Path) -> None:
    who = recorded(tmp_path, range(3))
    file, head = tmp_path / FIRST, tmp_path / "egress.head"
    match what:
        case "removed":
            file.unlink()
        case "shorter":
            file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
        case "longer":
            file.write_bytes(file.read_bytes() + file.read_bytes().splitlines(keepends=True)[-1])
        case "head":
            head.write_bytes(head.read_bytes().replace(b'"size":', b'"size":1'))
        case "no-head":
            head.unlink()
        case "other-file":
            (tmp_path / "egress-0003.jsonl").write_bytes(b"")
    with pytest.raises(EgressError, match=r"nothing leaves this site|has been edited"):
        open_record(tmp_path, who)
    if what != "other-file":
        with pytest.raises(EgressError):
            verify(tmp_path)


def test_line_and_head_are_on_the_disk_before_a_message_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []
    inner = os.fsync

    def fsync(handle: int) -> None:
        found = os.fstat(handle)
        synced.append((found.st_ino, found.st_size))
        inner(handle)

    def state(name: str) -> tuple[int, int]:
        found = (tmp_path / name).stat()
        return found.st_ino, found.st_size

    with open_record(tmp_path, site("hospital-a"), large=2000) as egress:
        monkeypatch.setattr(os, "fsync", fsync)
        for number in range(4):
            synced.clear()
            egress.append(departure(number))
            last = sorted(path.name for path in tmp_path.glob("*.jsonl"))[-1]
            # The folder comes last: it holds the names of the head and of a new file.
            assert synced[-3:-1] == [state(last), state("egress.head")]
            assert synced[-1][0] == tmp_path.stat().st_ino
    assert last == "egress-0002.jsonl"


def test_a_full_disk_refuses_before_anything_leaves(tmp_path: Path) -> None:
    who = site("hospital-a")
    left: list[int] = []
    with open_record(tmp_path, who) as egress:

        def send(number: int) -> None:
            egress.append(departure(number))
            left.append(number)

        message = ""
        while not message:
            message = with_little_room(lambda: send(len(left)))
        assert message.startswith(f"RunError: {tmp_path / FIRST} cannot be written: ")
        assert verify(tmp_path).messages == len(left) > 0
        assert verify(tmp_path).unfinished == 0
        send(len(left))
    assert verify(tmp_path, who.certificate).messages == len(left)


def test_a_head_that_cannot_be_written_refuses_too(tmp_path: Path) -> None:
    who, head = site("hospital-a"), tmp_path / "egress.head"
    with open_record(tmp_path, who) as egress:
        egress.append(departure(0))
        head.rename(tmp_path / "kept")
        head.mkdir()
        for _ in range(3):
            with pytest.raises(RunError, match="it is a folder"):
                egress.append(departure(1))
        head.rmdir()
        (tmp_path / "kept").rename(head)
        # One line is there of a message that did not leave, and not three.
        assert verify(tmp_path).messages == 2
        egress.append(departure(1))
    assert verify(tmp_path, who.certificate).messages == 3
