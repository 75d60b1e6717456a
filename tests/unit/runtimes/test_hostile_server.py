"""A server that sends what it should not: a site answers with a refusal; its disk stays free."""

from __future__ import annotations

import hashlib
import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from atoll.errors import PayloadError
from atoll.frames import Frame, Kind
from atoll.runtimes import mailbox, pieces
from atoll.runtimes.letters import PIECE, Answer, Call, Letter, packed, unpacked
from atoll.runtimes.lines import Line
from atoll.runtimes.mailbox import KEPT, Mailbox

RUN = 32 * "a"
Usage = namedtuple("Usage", "total used free")


def call(letter: str = "r1-e0", *, run: str = RUN, size: int = 9, **more: Any) -> Call:
    told = {"run": run, "letter": letter, "size": size, "digest": 64 * "0", **more}
    return Call.model_validate(told)


def told(box: Mailbox, asked: Call, body: bytes = b"") -> Answer:
    return unpacked(Answer, box.take(packed(asked, [body])))[0]


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "state", "ada", lambda run: True)


def held(folder: Path) -> set[str]:
    """Files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "x/../../y", "/etc", ".hidden", "a\0b", "a\nb", "ä", "", 65 * "x", "r1-e0\n"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["run", "letter"])
def test_names_lead_nowhere(box: Mailbox, tmp_path: Path, key: str, name: str) -> None:
    told_of = {"run": RUN, "letter": "r1", "size": 1, "digest": 64 * "0", "piece": 0, key: name}
    head = json.dumps(told_of).encode()
    answer, _ = unpacked(Answer, box.take(len(head).to_bytes(4, "little") + head + b"x"))
    assert (answer.state, answer.letter) == ("refused", "unread")
    assert answer.why.startswith(f"a message that came is refused: {key}")
    assert held(tmp_path) == set()


@pytest.mark.parametrize("run", ["egress", "engine", "paused", "status", "state", 32 * "g"])
def test_a_federation_takes_no_folder_of_the_sites_own(run: str) -> None:
    head = json.dumps({"run": run, "letter": "r", "size": 1, "digest": 64 * "0"}).encode()
    with pytest.raises(PayloadError, match="run"):
        unpacked(Call, len(head).to_bytes(4, "little") + head)


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xff\xff\xff", b"\x02\0\0\0{}", 2**20 * b"["])
def test_what_cannot_be_read_is_answered_too(box: Mailbox, data: bytes) -> None:
    answer, _ = unpacked(Answer, box.take(data))
    assert (answer.client, answer.state) == ("ada", "refused")


def test_a_letter_that_is_too_large_is_not_begun(box: Mailbox, tmp_path: Path) -> None:
    first = told(box, call(size=2**32 + 1, piece=0), PIECE * b"x")
    assert first.why == (
        "a letter of 4,294,967,297 bytes was announced; at most 4,294,967,296 are read"
    )
    opening = told(box, call("opening-look", size=2**24 + 1, piece=0), (2**24 + 1) * b"x")
    assert opening.why.endswith("at most 16,777,216 are read")
    assert held(tmp_path) == set()


def test_a_disk_is_not_filled(
    box: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces.shutil, "disk_usage", lambda path: Usage(0, 0, 2**28 + 8))
    assert told(box, call(size=9, piece=0), 9 * b"x").why == (
        "a letter of 9 bytes was announced, and this site's disk has 268,435,464 left"
    )
    assert told(box, call(size=8, piece=0), 8 * b"x").state == "working"
    assert held(tmp_path) == {f"state/{RUN}/letters/r1-e0-{16 * '0'}/0"}


def test_letters_that_are_never_whole_take_the_place_of_each_other(
    box: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 10)
    monkeypatch.setattr(pieces, "pieces_of", lambda size: -(-size // 10))
    for number in range(50):
        digest = f"{number:064x}"[::-1]
        found = told(box, call(f"r{number}", size=95, digest=digest, piece=3), 10 * b"x")
        assert found.missing == (0, 1, 2, 4, 5, 6, 7, 8, 9)
    assert len(held(tmp_path)) == 2
    # A process that begins anew is sent all of it again.
    Mailbox(tmp_path / "state", "ada", lambda run: True)
    assert held(tmp_path) == set()


def test_a_site_keeps_so_many_federations(
    box: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "FEDERATIONS", 3)
    found = [
        told(box, call("opening-x", run=f"{n:032x}", digest=f"{n:064x}", piece=0), 9 * b"x")
        for n in range(4)
    ]
    assert [answer.state for answer in found[:3]] == ["working"] * 3
    assert "this site keeps the folders of 3 federations" in found[3].why
    assert told(box, call("opening-y", run=f"{0:032x}", piece=0), 9 * b"x").state == "working"


def test_a_piece_that_is_none_of_the_letter(box: Mailbox, tmp_path: Path) -> None:
    for asked, body in ((call(piece=1), b"x"), (call(piece=0), b"x"), (call(piece=0), 10 * b"x")):
        assert told(box, asked, body).why.startswith(f"piece {asked.piece} of 1 came with ")
    assert held(tmp_path) == set()


def test_a_full_disk_is_told_and_the_next_call_is_answered(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pieces, "_write", full)
        assert "No space left" in told(box, call(piece=0), 9 * b"x").why
    assert told(box, call(piece=0), 9 * b"x").state == "working"


def test_the_server_hears_why(tmp_path: Path) -> None:
    line = Line("ada", RUN, tmp_path)
    line.connected(7, "")
    line.send(Letter.of("r1-e0", [Frame(Kind.ASK, 0, b"")]), limit=9)
    found = line.due()
    assert found is not None
    line.went(1, found[0], 0)
    why = Answer(client="ada", session="s", letter="unread", state="refused", why="no \x1b[2J room")
    with pytest.raises(PayloadError, match=r"^ada does not read it: no \?\[2J room$"):
        line.take(1, why, memoryview(b""))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "PATIENCE", 0.0)


@pytest.fixture(autouse=True)
def _impatient(short: None) -> None:
    """Nobody works here: what waits would wait in vain."""


def test_answers_are_few_whatever_letters_are_called(box: Mailbox, tmp_path: Path) -> None:
    for number in range(20):
        for name in (f"opening-{number}", f"r{number}-e0"):
            digest = hashlib.sha256(name.encode()).hexdigest()
            told(box, call(name, size=len(name), digest=digest, piece=0), name.encode())
            letter = next(box.letters())
            box.answer(letter, lambda send: send(Frame(Kind.READY, 0, b"{}")))
    assert len(held(tmp_path / "state" / RUN / "answers")) == 2 * KEPT


def test_an_answer_that_was_written_over_is_not_told_any_more(box: Mailbox) -> None:
    """A letter's second attempt has its name; the first one is then answered anew."""
    letters = box.letters()
    for body in (b"first", b"second, which is longer"):
        digest = hashlib.sha256(body).hexdigest()
        told(box, call(size=len(body), digest=digest, piece=0), body)
        letter = next(letters)
        box.answer(letter, lambda send, body=body: send(Frame(Kind.RECORD, 0, body)))
    first = hashlib.sha256(b"first").hexdigest()
    assert told(box, call(size=5, digest=first)).state == "incomplete"
