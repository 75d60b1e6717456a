"""A client's letters: pieces come in, whole letters wait for work, and answers are kept."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Condition
from time import monotonic

from atoll.disk.files import write_whole
from atoll.errors import AtollError
from atoll.frames import Frame, Kind, head_of
from atoll.runtimes.letters import (
    INLINE,
    OPENING,
    PATIENCE,
    PIECE,
    UNREAD,
    WHY,
    Answer,
    Call,
    State,
    packed,
    pieces_of,
    unpacked,
)
from atoll.runtimes.pieces import Pieces

__all__ = ["Mailbox", "Received"]

KEPT = 4
"""Answers that are kept, for a server that asks again."""
DIGEST = 64
"""Bytes at the beginning of a kept answer: the digest of what it answers."""

Send = Callable[[Frame], None]


@dataclass(frozen=True)
class Received:
    """A whole letter."""

    run: str
    name: str
    digest: str
    data: bytes


@dataclass(frozen=True)
class _Kept:
    """An answer on disk; `sent`: it went along once, unasked.   refusal: of an opening."""

    path: Path
    size: int
    digest: str
    sent: bool = False
    refusal: bool = False


class Mailbox:
    """The letters of one site; `take` is called by who listens, the rest by who works.

    opened: whether this process knows the federation that a call names.
    """

    def __init__(self, folder: Path, client: str, opened: Callable[[str], bool]) -> None:
        self._folder, self._client, self._opened = folder, client, opened
        self._pieces = Pieces(folder)
        self._session = uuid.uuid4().hex
        self._waiting: SimpleQueue[Call] = SimpleQueue()
        self._changed = Condition()
        self._queued: set[str] = set()
        self._answers: dict[str, _Kept] = {}

    def take(self, data: bytes) -> bytes:
        """What to say to a call; waits a little for an answer that is being made."""
        letter = UNREAD
        try:
            call, body = unpacked(Call, data)
            letter = call.letter
            return self._said(call, body)
        except (AtollError, OSError) as error:
            # Who listens goes on: the next call may be a better one, and the disk less full.
            word = self._word(letter, "refused").model_copy(update={"why": str(error)[:WHY]})
            return packed(word)

    def _said(self, call: Call, body: memoryview) -> bytes:
        if not call.letter.startswith(OPENING) and not self._opened(call.run):
            return packed(self._word(call.letter, "unopened"))
        if call.digest not in self._queued and (self._kept(call) is None or self._again(call)):
            missing = self._pieces.missing(call, body)
            if missing:
                word = self._word(call.letter, "incomplete")
                return packed(word.model_copy(update={"missing": missing}))
            self._answers.pop(call.digest, None)
            self._queued.add(call.digest)
            self._waiting.put(call)
        return self._told(call)

    def letters(self) -> Iterator[Received]:
        """Whole letters, as they come, for ever."""
        while True:
            call = self._waiting.get()
            try:
                data = self._pieces.whole(call)
            except OSError:  # others took its place: it is sent again
                data = b""
            if hashlib.sha256(data).hexdigest() == call.digest:
                yield Received(call.run, call.letter, call.digest, data)
            with self._changed:
                self._queued.discard(call.digest)
                self._changed.notify_all()

    def answer(self, letter: Received, work: Callable[[Send], None]) -> None:
        """Keep what `work` sends in answer to a letter; whoever waits for it is told."""
        digest, size, broken = hashlib.sha256(), 0, False
        path = self._folder / letter.run / "answers" / letter.name

        def write(partial: Path) -> None:
            with partial.open("wb") as opened:
                opened.write(letter.digest.encode())

                def send(frame: Frame) -> None:
                    nonlocal size, broken
                    broken = broken or frame.kind is Kind.BROKEN
                    for part in (head_of(frame), frame.data):
                        digest.update(part)
                        size += opened.write(part)

                work(send)

        write_whole(path, write)
        with self._changed:
            refusal = broken and letter.name.startswith(OPENING)
            # Another letter of this name has had its day.
            self._answers = {d: k for d, k in self._answers.items() if k.path != path}
            self._answers[letter.digest] = _Kept(path, size, digest.hexdigest(), refusal=refusal)
            self._changed.notify_all()
        _forget(path.parent)

    def _told(self, call: Call) -> bytes:
        end = monotonic() + PATIENCE
        with self._changed:
            while (kept := self._kept(call)) is None and (left := end - monotonic()) > 0:
                self._changed.wait(left)
        if kept is None:
            return packed(self._word(call.letter, "working"))
        facts: dict[str, object] = {"size": kept.size, "digest": kept.digest}
        piece = call.fetch
        if piece is None and kept.size <= INLINE and not kept.sent:
            piece = 0
            self._answers[call.digest] = replace(kept, sent=True)
        word = self._word(call.letter, "done")
        if piece is None or piece >= pieces_of(kept.size):
            return packed(word.model_copy(update=facts))
        with kept.path.open("rb") as opened:
            opened.seek(DIGEST + piece * PIECE)
            return packed(word.model_copy(update=facts | {"piece": piece}), [opened.read(PIECE)])

    def _kept(self, call: Call) -> _Kept | None:
        """The answer to exactly this letter, also one that an earlier process made."""
        # An opening opens this process.
        if call.digest not in self._answers and not call.letter.startswith(OPENING):
            path = self._folder / call.run / "answers" / call.letter
            data = path.read_bytes() if path.is_file() else b""
            if data[:DIGEST] == call.digest.encode():
                digest = hashlib.sha256(data[DIGEST:]).hexdigest()
                self._answers[call.digest] = _Kept(path, len(data) - DIGEST, digest)
        kept = self._answers.get(call.digest)
        return kept if kept is not None and kept.path.is_file() else None

    def _again(self, call: Call) -> bool:
        """Whether an opening that was refused comes again: what stood against it may be over."""
        kept = self._answers.get(call.digest)
        return kept is not None and kept.refusal and kept.sent and call.piece is not None

    def _word(self, letter: str, state: State) -> Answer:
        return Answer(client=self._client, session=self._session, letter=letter, state=state)


def _forget(folder: Path) -> None:
    """Drop all answers but the last ones, and the last ones to openings."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for opening in (False, True):
        some = [path for path in found if path.name.startswith(OPENING) is opening]
        for path in sorted(some, key=lambda one: one.stat().st_mtime_ns)[:-KEPT]:
            path.unlink()
