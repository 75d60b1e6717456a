"""Letters between a server's line and a client's mailbox, over a wire that loses and repeats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.core import Channel, Reply
from atoll.core.wire import pack
from atoll.errors import PayloadError
from atoll.frames import HEAD, Frame, Kind
from atoll.runtimes import lines
from atoll.runtimes.incoming import Incoming
from atoll.runtimes.letters import (
    PIECE,
    Answer,
    Call,
    Letter,
    frames_in,
    packed,
    pieces_of,
    unpacked,
)
from atoll.runtimes.lines import Line
from atoll.runtimes.mailbox import Mailbox, Received
from atoll.runtimes.spool import records_of

KINDS = (Kind.RECORD, Kind.DONE)

RUN = 32 * "0"


def plain(frames: Sequence[Frame]) -> bytes:
    return b"".join(HEAD.pack(f.kind.value, f.number, len(f.data)) + f.data for f in frames)


FRAMES = st.lists(
    st.builds(Frame, st.sampled_from(KINDS), st.integers(0, 2**32 - 1), st.binary(max_size=50)),
    max_size=5,
)


@given(FRAMES)
def test_a_letter_is_its_frames_one_after_the_other(frames: list[Frame]) -> None:
    letter = Letter.of("x", frames)
    whole = b"".join(letter.piece(n).rest for n in range(letter.pieces))
    assert whole == plain(frames)
    assert (letter.size, letter.digest) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert list(frames_in(whole, kinds=KINDS)) == frames


@given(FRAMES, st.data())
def test_what_is_cut_off_or_of_another_kind_is_refused(
    frames: list[Frame], data: st.DataObject
) -> None:
    whole = plain([*frames, Frame(Kind.DONE, 1, b"end")])
    cut = data.draw(st.integers(len(whole) - HEAD.size - 2, len(whole) - 1))
    with pytest.raises(PayloadError):
        list(frames_in(whole[:cut], kinds=KINDS))
    with pytest.raises(PayloadError):
        list(frames_in(plain([Frame(Kind.BROKEN)]), kinds=KINDS))


def test_a_large_letter_travels_in_pieces() -> None:
    first, second = bytes(PIECE + 5), b"\1" * (PIECE + 7)
    letter = Letter.of("x", [Frame(Kind.RECORD, 0, first), Frame(Kind.ASK, 0, second)])
    whole = plain([Frame(Kind.RECORD, 0, first), Frame(Kind.ASK, 0, second)])
    pieces = [letter.piece(n).rest for n in range(letter.pieces)]
    assert [len(piece) for piece in pieces] == [PIECE, PIECE, len(whole) - 2 * PIECE]
    assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(whole).digest()
    assert [pieces_of(size) for size in (0, 1, PIECE, PIECE + 1)] == [1, 1, 1, 2]


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "", "x" * 65, "a\0b", "ä"])
def test_names_are_names_of_files(name: str) -> None:
    head = {"run": RUN, "letter": name, "size": 0, "digest": "0" * 64}
    import json

    text = json.dumps(head).encode()
    with pytest.raises(PayloadError, match="letter"):
        unpacked(Call, len(text).to_bytes(4, "little") + text)


class Wire:
    """Calls of a line brought to a mailbox, where `fate` says what becomes of each."""

    def __init__(self, folder: Path, fate: Callable[[], str]) -> None:
        self.worked: list[str] = []
        self.mailbox = Mailbox(folder / "site", "ada", lambda run: True)
        self.line = Line("ada", RUN, folder / "spool")
        self.line.connected(1, "now")
        self.line.rest = 0.0
        self._fate, self._tag = fate, 0
        self._worker = Thread(target=self._work, daemon=True)
        self._worker.start()

    def _work(self) -> None:
        for letter in self.mailbox.letters():
            self.worked.append(letter.name)
            self.mailbox.answer(letter, lambda send, letter=letter: self._answer(letter, send))

    def _answer(self, letter: Received, send: Callable[[Frame], None]) -> None:
        for frame in frames_in(letter.data, kinds=[Kind.RECORD, Kind.ASK]):
            send(Frame(Kind.RECORD, frame.number, frame.data[::-1]))

    def carry(self) -> bytes:
        """Bring the letter and its answer over; returns the answer."""
        for _ in range(200):
            due = self.line.due()
            if due is None:
                break
            call, body = due
            self._tag += 1
            self.line.went(self._tag, call, 0)
            fate = self._fate()
            if fate == "lost":
                self.line.lost(self._tag)
                continue
            said = self.mailbox.take(packed(call, [body.rest]))
            if fate == "twice":
                said = self.mailbox.take(packed(call, [body.rest]))
            if fate == "unheard":
                self.line.lost(self._tag)
                continue
            answer, rest = unpacked(Answer, said)
            self.line.take(self._tag, answer, rest)
        assert self.line.answer is not None
        return self.line.answer.read_bytes()


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    fates=st.lists(st.sampled_from(["", "lost", "unheard", "twice"]), max_size=12),
    bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=3),
)
def test_a_wire_that_loses_and_repeats_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str], bodies: list[bytes]
) -> None:
    left = list(fates)
    wire = Wire(tmp_path_factory.mktemp("wire"), lambda: left.pop() if left else "")
    for number, body in enumerate(bodies):
        frames = [Frame(Kind.RECORD, number, body), Frame(Kind.ASK, number, b"ask")]
        wire.line.send(Letter.of(f"r{number}", frames), limit=1000)
        expected = [Frame(Kind.RECORD, number, body[::-1]), Frame(Kind.RECORD, number, b"ksa")]
        assert wire.carry() == plain(expected)
    # However often it was asked, each letter was worked on once.
    assert wire.worked == [f"r{number}" for number in range(len(bodies))]


def test_a_letter_that_was_answered_is_answered_again_with_the_same_bytes(tmp_path: Path) -> None:
    letter = Letter.of("r1", [Frame(Kind.RECORD, 0, b"abc")])
    wire = Wire(tmp_path, lambda: "")
    wire.line.send(letter, limit=1000)
    first = wire.carry()
    again = Wire(tmp_path, lambda: "")  # both processes are new; the server's spool is empty
    again.line = Line("ada", RUN, tmp_path / "other")
    again.line.connected(1, "now")
    again.line.send(letter, limit=1000)
    assert (again.carry(), again.worked) == (first, [])
    # The server's own spool is enough, where it kept the answer to this very letter.
    kept = Line("ada", RUN, tmp_path / "spool")
    kept.send(letter, limit=1000)
    assert kept.answer is not None
    kept.send(Letter.of("r1", [Frame(Kind.RECORD, 0, b"abd")]), limit=1000)
    assert kept.answer is None


def test_large_answers_are_asked_for_piece_by_piece(tmp_path: Path) -> None:
    body = bytes(range(256)) * 250_000  # 64 MB: two pieces
    wire = Wire(tmp_path, lambda: "")
    wire.line.send(Letter.of("r1", [Frame(Kind.RECORD, 0, body)]), limit=10**8, likely=len(body))
    assert wire.carry() == plain([Frame(Kind.RECORD, 0, body[::-1])])


def called(spool: Path) -> tuple[Line, Path]:
    """A line whose message 1 asks for an answer, and the file where a large one belongs."""
    line = Line("ada", RUN, spool)
    line.connected(1, "now")
    line.send(Letter.of("r1", []), limit=1000)
    due = line.due()
    assert due is not None
    place = line.place(due[0])
    line.went(1, due[0], 0)
    return line, place.path


def answered(data: bytes, *, piece: int | None = None) -> Answer:
    return Answer(client="ada", session="s", letter="r1", state="done", size=len(data),
                  piece=piece, digest=hashlib.sha256(data).hexdigest())  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "body", "why"),
    [
        ({"size": 1001}, b"", "announces an answer of 1,001 bytes; at most 1,000"),
        ({"size": 3, "piece": 0}, b"ab", "piece 0 of 1"),
        ({"size": 2, "piece": 1}, b"ab", "piece 1 of 1"),
        ({"size": 2, "piece": 0, "digest": "0" * 64}, b"ab", "not what it was announced to be"),
    ],
)
def test_an_answer_that_is_not_as_it_says_is_refused(
    tmp_path: Path, changes: dict[str, object], body: bytes, why: str
) -> None:
    line, _ = called(tmp_path)
    good = answered(b"ab")
    with pytest.raises(PayloadError, match=why):
        line.take(1, good.model_copy(update=changes), memoryview(body))
    assert line.answer is None


def test_a_body_that_is_in_its_place_counts_as_one_that_came(tmp_path: Path) -> None:
    line, place = called(tmp_path)
    place.write_bytes(b"abcd of an answer that was longer")
    line.take(1, answered(b"abcd", piece=0), 4)
    assert line.answer is not None
    assert line.answer.read_bytes() == b"abcd"


@pytest.mark.parametrize(
    ("piece", "came", "why"),
    [(1, 4, "a piece that was not asked for"), (0, 5, "came with 5 bytes"), (0, 4, "not what it")],
)
def test_a_body_in_another_place_or_of_another_size_is_refused(
    tmp_path: Path, piece: int, came: int, why: str
) -> None:
    line, place = called(tmp_path)
    place.write_bytes(b"abcx")
    with pytest.raises(PayloadError, match=why):
        line.take(1, answered(b"abcd", piece=piece), came)
    assert line.answer is None


def test_a_node_that_came_again_is_sent_everything_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line("ada", RUN, tmp_path)
    line.send(Letter.of("r1", []), limit=1000)
    assert line.due() is None  # not connected
    line.connected(1, "now")
    for tag in (1, 2):
        due = line.due()
        assert due is not None
        line.went(tag, due[0], 0)
        assert line.due() is None  # one is enough, unless nothing comes back
        monkeypatch.setattr(lines, "QUIET", 0.0)
    assert line.due() is None  # two are on their way
    line.connected(1, "now")
    assert line.due() is None
    line.connected(1, "later")
    due = line.due()
    assert due is not None
    assert due[0].piece == 0


@pytest.mark.parametrize("number", [1, 2])
def test_records_of_an_answer_stay_on_disk_until_they_are_used(tmp_path: Path, number: int) -> None:
    value = torch.arange(6.0).reshape(2, 3)
    reply = Reply("ada", {"update": Channel({"b": value, "a": torch.ones(2, dtype=torch.int8)})})
    frames = [Frame(Kind.RECORD, n, pack(reply)) for n in range(number)]
    (tmp_path / "answer").write_bytes(plain([*frames, Frame(Kind.DONE)]))
    for record in records_of(tmp_path / "answer", number, 10_000):
        assert isinstance(record, Reply)
        tree = record.payload["update"].tree
        assert list(tree) == ["b", "a"]
        assert torch.equal(tree["b"], value)
        assert tree["a"].dtype == torch.int8
    assert [path.name for path in tmp_path.iterdir()] == ["answer"]


def test_values_that_are_not_aligned_are_read_all_the_same(tmp_path: Path) -> None:
    replies = [
        Reply("ada", {"update": Channel({"odd": torch.arange(size, dtype=torch.int8),
                                         "w": torch.arange(3.0)})})
        for size in (3, 2)
    ]  # fmt: skip
    frames = [Frame(Kind.RECORD, n, pack(reply)) for n, reply in enumerate(replies)]
    assert len(frames[0].data) % 4
    (tmp_path / "answer").write_bytes(plain([*frames, Frame(Kind.DONE)]))
    for record in records_of(tmp_path / "answer", 2, 10_000):
        assert isinstance(record, Reply)
        value = record.payload["update"].tree["w"]
        assert torch.equal(value, torch.arange(3.0))
        assert value.data_ptr() % 4 == 0


def test_what_is_written_to_a_value_does_not_reach_the_file(tmp_path: Path) -> None:
    reply = Reply("ada", {"update": Channel({"w": torch.arange(3.0)})})
    whole = plain([Frame(Kind.RECORD, 0, pack(reply)), Frame(Kind.DONE)])
    (tmp_path / "answer").write_bytes(whole)
    (record,) = records_of(tmp_path / "answer", 1, 10_000)
    assert isinstance(record, Reply)
    record.payload["update"].tree["w"].zero_()
    assert (tmp_path / "answer").read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda whole: whole[:-20], "cut off|no done"),
        (lambda whole: b"", "no record"),
        (lambda whole: whole[:16] + b"\xff" * 8 + whole[24:], "would be the header"),
        (lambda whole: b"x" + whole[1:], "no record"),
        (lambda whole: whole[:8] + b"\xff\xff\xff\xff\xff\xff\xff\x0f" + whole[16:], "no record"),
    ],
)
def test_records_that_are_not_whole_are_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], why: str
) -> None:
    reply = Reply("ada", {"update": Channel({"b": torch.arange(6.0)})})
    whole = plain([Frame(Kind.RECORD, 0, pack(reply)), Frame(Kind.DONE)])
    (tmp_path / "answer").write_bytes(change(whole))
    with pytest.raises(PayloadError, match=why):
        list(records_of(tmp_path / "answer", 1, 10_000))


def test_who_answers_nothing_of_ours_is_not_asked_at_once_again(tmp_path: Path) -> None:
    line = Line("ada", 32 * "a", tmp_path, rest=1000.0)
    line.connected(1, "now")
    line.send(Letter.of("r1", []), limit=1000)
    due = line.due()
    assert due is not None
    line.went(1, due[0], 0)
    line.lost(1)
    assert line.due() is None
    line.rest = 0.0
    line.lost(1)
    assert line.due() is not None


def test_what_was_looked_at_does_not_change(tmp_path: Path) -> None:
    """A client sends its answer twice, and a relay still writes the second one."""
    letter, body = Letter.of("r1", []), b"good" * 100
    coming = Incoming("ada", letter, tmp_path, 10**6)
    place = coming.place(0)
    place.path.write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    coming.announced(Answer(client="ada", session="s", letter="r1", state="done", size=len(body),
                            digest=digest))  # fmt: skip
    with place.path.open("r+b") as relay:
        coming.keep(0, len(body))
        relay.write(b"evil" * 200)
        relay.flush()
    assert coming.whole is not None
    assert coming.whole.read_bytes() == body
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer", "of"]
