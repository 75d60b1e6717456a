"""An answer on its way in: announced, then piece by piece on disk, then whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

from atoll.errors import PayloadError
from atoll.flower.parcels import LENGTH, Stored
from atoll.runtimes.letters import PIECE, Answer, Letter, pieces_of, unpacked

__all__ = ["Incoming", "read_answer"]

COPIED = 2**20


class Incoming:
    """The answer of `client` to a letter, in `folder`; at most `limit` bytes of it are taken.

    wanted: its pieces that are still to come.   whole: where it is, once all of it is here.
    """

    def __init__(self, client: str, letter: Letter, folder: Path, limit: int) -> None:
        self.size, self.wanted = 0, set[int]()
        self.whole: Path | None = None
        # Of the letter itself nothing is kept: it is large.
        self._client, self._of, self._folder, self._limit = client, letter.digest, folder, limit
        self._part = folder / f"part-{letter.digest[:16]}"
        self._digest = ""

    def find(self) -> None:
        """Take what an earlier process kept, where it is the answer to this very letter."""
        of = self._folder / "of"
        if of.is_file() and of.read_text() == self._of:
            answer = self._folder / "answer"
            self.whole = answer if answer.is_file() else None

    def announced(self, answer: Answer) -> None:
        """What it will be like; another announcement begins anew.

        Raises:
            PayloadError: more bytes than are taken.
        """
        if answer.size > self._limit:
            raise PayloadError(
                f"{self._client} announces an answer of {answer.size:,} bytes; at most "
                f"{self._limit:,} are read"
            )
        if (answer.size, answer.digest) != (self.size, self._digest):
            self.size, self._digest = answer.size, answer.digest or ""
            self.wanted = set(range(pieces_of(answer.size)))

    def place(self, piece: int) -> Stored:
        """Where a piece belongs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return Stored(path=self._part, start=piece * PIECE, length=PIECE)

    def keep(self, piece: int, body: memoryview | int) -> None:
        """Write a piece where it belongs; a number of bytes where it is there already.

        Raises:
            PayloadError: one that is not as it was announced.
        """
        came = body if isinstance(body, int) else len(body)
        number = pieces_of(self.size)
        length = PIECE if piece + 1 < number else self.size - (number - 1) * PIECE
        if piece >= number or came != length:
            raise PayloadError(
                f"piece {piece} of {number} of an answer of {self._client} came with {came:,} bytes"
            )
        if not isinstance(body, int):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._part.open("r+b" if self._part.exists() else "w+b") as opened:
                opened.seek(piece * PIECE)
                opened.write(body)
        self.wanted.discard(piece)
        if not self.wanted:
            self._check()

    def _check(self) -> None:
        """All pieces are here; behind them may be more, of what was announced before.

        They are copied: a relay may still be writing what a client sends twice, and what was looked
        at must not change.
        """
        copy, digest, left = self._part.with_suffix(".whole"), hashlib.sha256(), self.size
        with self._part.open("rb") as opened, copy.open("wb") as out:
            while left and (data := opened.read(min(left, COPIED))):
                digest.update(data)
                left -= out.write(data)
        self._part.unlink()
        if digest.hexdigest() != self._digest:
            self._digest = ""
            copy.unlink()
            raise PayloadError(f"an answer of {self._client} is not what it was announced to be")
        (self._folder / "of").write_text(self._of)
        self.whole = self._folder / "answer"
        copy.replace(self.whole)


def read_answer(data: bytes) -> tuple[Answer | None, memoryview | int]:
    """What a relay brings: an answer, or None where none came.

    Its body comes with it, or its length, where it is in its place already.

    Raises:
        PayloadError: another form than agreed.
    """
    if data[:1] == b"+":
        return unpacked(Answer, memoryview(data)[1:])
    if data[:1] == b"=":
        (size,) = LENGTH.unpack_from(data, 1)
        return unpacked(Answer, memoryview(data)[1 + LENGTH.size :])[0], int(size)
    return None, 0
