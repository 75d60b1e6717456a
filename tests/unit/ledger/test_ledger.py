"""A ledger: what was spent is never less than what was released, whatever happens to the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from atoll.accounting import Everyone, Poisson, Release, spent
from atoll.errors import PrivacyError, RunError
from atoll.ledger import Entry, Ledger, verified
from atoll.ledger.lines import FILE, HEAD

DELTA = 1e-5


def _entry(exchange: int, *, noise: float = 2.0, run: str = "r", name: str = "") -> Entry:
    release = Release(unit="client", noise_multiplier=noise, sampling=Everyone())
    return Entry(
        run=run, round=exchange, exchange=exchange, noise=name or f"n{exchange}", release=release
    )


def _fill(folder: Path, count: int) -> None:
    with Ledger.opened(folder, data="rows") as ledger:
        for exchange in range(count):
            ledger.write(_entry(exchange), DELTA)


def test_every_release_counts_over_runs(tmp_path: Path) -> None:
    with Ledger.opened(tmp_path, data="rows") as ledger:
        one = ledger.write(_entry(0), DELTA)
        two = ledger.write(_entry(0, run="other", noise=4.0), DELTA)
    releases = [_entry(0).release, _entry(0, noise=4.0).release]
    assert one.epsilon == spent(releases[:1], DELTA).epsilon
    assert two.epsilon == spent(releases, DELTA).epsilon > one.epsilon
    told = verified(tmp_path)
    assert [line.epsilon for line in told.lines] == [one.epsilon, two.epsilon]
    assert told.spent(DELTA, "other").epsilon == spent(releases[1:], DELTA).epsilon


def test_a_release_that_is_begun_again_counts_once_and_new_noise_counts_anew(
    tmp_path: Path,
) -> None:
    _fill(tmp_path, 2)
    with Ledger.opened(tmp_path, data="rows") as ledger:
        assert ledger.told.has(_entry(1))
        again = ledger.write(_entry(1), DELTA)
        other = ledger.write(_entry(1, name="new"), DELTA)
    assert again.epsilon == spent([_entry(0).release] * 2, DELTA).epsilon
    assert other.epsilon == spent([_entry(0).release] * 3, DELTA).epsilon
    assert len(verified(tmp_path).lines) == 4


def test_what_would_be_spent_writes_nothing(tmp_path: Path) -> None:
    with Ledger.opened(tmp_path, data="rows") as ledger:
        before = (tmp_path / FILE).read_bytes()
        found = ledger.after(_entry(0).release, DELTA)
        assert (tmp_path / FILE).read_bytes() == before
        assert ledger.write(_entry(0), DELTA) == found


def test_a_kill_at_any_byte_loses_no_release(tmp_path: Path) -> None:
    """Line by line, as a kill leaves it: the line whole or cut, the head before it or after."""
    _fill(tmp_path, 3)
    content, head = (tmp_path / FILE).read_bytes(), (tmp_path / HEAD).read_bytes()
    _fill_one_more(tmp_path)
    more = (tmp_path / FILE).read_bytes()[len(content) :]
    three = spent([_entry(0).release] * 3, DELTA).epsilon
    four = spent([_entry(0).release] * 4, DELTA).epsilon
    for cut in range(len(more) + 1):
        (tmp_path / FILE).write_bytes(content + more[:cut])
        (tmp_path / HEAD).write_bytes(head)
        with Ledger.opened(tmp_path, data="rows") as ledger:
            found = ledger.told.spent(DELTA).epsilon
            assert found == (four if cut == len(more) else three)
            if cut % 40 == 0:
                assert ledger.write(_entry(3), DELTA).epsilon == four
                assert len(verified(tmp_path).releases) == 4


def _fill_one_more(folder: Path) -> None:
    with Ledger.opened(folder, data="rows") as ledger:
        ledger.write(_entry(3), DELTA)


def test_a_release_is_on_the_disk_before_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line whole, then the new head whole and under its name, whenever the power goes."""
    done, sync, put = list[tuple[int, int]](), os.fsync, os.replace

    def fsync(handle: int) -> None:
        sync(handle)
        found = os.fstat(handle)
        done.append((found.st_ino, found.st_size))

    def replace(old: Path, new: Path) -> None:
        put(old, new)
        done.append((os.stat(new).st_ino, 0))

    with Ledger.opened(tmp_path, data="rows") as ledger:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fsync)
            patched.setattr(os, "replace", replace)
            ledger.write(_entry(0), DELTA)
        line, head, folder = map(os.stat, (tmp_path / FILE, tmp_path / HEAD, tmp_path))
    assert done == [
        (line.st_ino, line.st_size), (head.st_ino, head.st_size), (head.st_ino, 0),
        (folder.st_ino, folder.st_size),
    ]  # fmt: skip


def test_a_kill_before_the_first_head_begins_anew(tmp_path: Path) -> None:
    _fill(tmp_path, 0)
    (tmp_path / HEAD).unlink()
    _fill(tmp_path, 1)
    assert len(verified(tmp_path).lines) == 1


@pytest.mark.parametrize("line", range(4))
def test_an_edit_of_any_line_is_told(line: int, tmp_path: Path) -> None:
    _fill(tmp_path, 3)
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    edited = lines[line].replace('"time":"20', '"time":"21')
    assert edited != lines[line]
    (tmp_path / FILE).write_text("".join([*lines[:line], edited, *lines[line + 1 :]]))
    with pytest.raises(PrivacyError, match="was changed"):
        verified(tmp_path)
    with pytest.raises(PrivacyError, match="was changed"), Ledger.opened(tmp_path, data="rows"):
        pass


@pytest.mark.parametrize("gone", [[0], [1], [2], [3], [2, 3], [0, 1, 2, 3]])
def test_a_line_that_is_gone_is_told(gone: list[int], tmp_path: Path) -> None:
    _fill(tmp_path, 3)
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    (tmp_path / FILE).write_text("".join(x for i, x in enumerate(lines) if i not in gone))
    with pytest.raises(PrivacyError, match=r"changed|ends after line"):
        verified(tmp_path)


def test_a_ledger_without_its_head_is_told(tmp_path: Path) -> None:
    _fill(tmp_path, 1)
    (tmp_path / HEAD).unlink()
    with pytest.raises(PrivacyError, match=r"ledger\.head is missing"):
        verified(tmp_path)


@pytest.mark.parametrize("head", ["", "{}", '{"number":9,"size":1,"hash":"x"}'])
def test_a_changed_head_is_told(head: str, tmp_path: Path) -> None:
    _fill(tmp_path, 1)
    (tmp_path / HEAD).write_text(head)
    with pytest.raises(PrivacyError, match=r"changed|ends after line"):
        verified(tmp_path)


def test_an_epsilon_that_its_releases_do_not_come_to_is_told(tmp_path: Path) -> None:
    _fill(tmp_path, 2)
    lines = [json.loads(x) for x in (tmp_path / FILE).read_text().splitlines()]
    lines[-1]["epsilon"] = 0.1
    raw = [json.dumps(x, sort_keys=True, separators=(",", ":")) + "\n" for x in lines]
    (tmp_path / FILE).write_text("".join(raw))
    head = json.loads((tmp_path / HEAD).read_text())
    from hashlib import sha256

    whole = {"number": 2, "size": len("".join(raw)), "hash": sha256(raw[-1].encode()).hexdigest()}
    assert whole.keys() == head.keys()
    (tmp_path / HEAD).write_text(json.dumps(whole, sort_keys=True, separators=(",", ":")) + "\n")
    with pytest.raises(PrivacyError, match=r"line 3 says epsilon 0\.1"):
        verified(tmp_path)


def test_another_data_set_and_another_process_are_refused(tmp_path: Path) -> None:
    _fill(tmp_path, 1)
    with pytest.raises(PrivacyError, match="another data set"), Ledger.opened(tmp_path, data="x"):
        pass
    with (
        Ledger.opened(tmp_path, data="rows"),
        pytest.raises(RunError, match="another run releases"),
        Ledger.opened(tmp_path, data="rows"),
    ):
        pass


def test_no_noise_is_told_as_no_bound(tmp_path: Path) -> None:
    with Ledger.opened(tmp_path, data="rows") as ledger:
        ledger.write(_entry(0, noise=0.0), DELTA)
    assert verified(tmp_path).lines[0].epsilon is None


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="holds no ledger"):
        verified(tmp_path)


def test_a_line_holds_the_event_as_it_was(tmp_path: Path) -> None:
    release = Release(unit="client", noise_multiplier=1.5, sampling=Poisson(rate=0.25), steps=2)
    entry = Entry(run="r", round=1, exchange=2, noise="n", release=release)
    with Ledger.opened(tmp_path, data="rows") as ledger:
        ledger.write(entry, DELTA)
    assert verified(tmp_path).lines[0].entry == entry
