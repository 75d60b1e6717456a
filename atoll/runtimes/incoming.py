"""An answer on its way in: announced, then piece by piece on disk, then whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

from atoll.errors import PayloadError
from atoll.runtimes.letters import PIECE, Answer, Letter, pieces_of

__all__ = ["Incoming"]


class Incoming:
    """The answer of `client` to a letter, in `folder`; at most `limit` bytes of it are taken.

    wanted: its pieces that are still to come.   whole: where it is, once all of it is here.
    """

    def __init__(self, client: str, letter: Letter, folder: Path, limit: int) -> None:
        self.size, self.wanted = 0, set[int]()
        self.whole: Path | None = None
        self._client, self._letter, self._folder, self._limit = client, letter, folder, limit
        self._digest = ""

    def find(self) -> None:
        """Take what an earlier process kept, where it is the answer to this very letter."""
        of = self._folder / "of"
        if of.is_file() and of.read_text() == self._letter.digest:
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
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "part").unlink(missing_ok=True)

    def keep(self, piece: int, body: memoryview) -> None:
        """Write a piece where it belongs.

        Raises:
            PayloadError: one that is not as it was announced.
        """
        number = pieces_of(self.size)
        length = PIECE if piece + 1 < number else self.size - (number - 1) * PIECE
        if piece >= number or len(body) != length:
            raise PayloadError(
                f"piece {piece} of {number} of an answer of {self._client} came with "
                f"{len(body):,} bytes"
            )
        part = self._folder / "part"
        with part.open("r+b" if part.exists() else "w+b") as opened:
            opened.seek(piece * PIECE)
            opened.write(body)
        self.wanted.discard(piece)
        if not self.wanted:
            self._check(part)

    def _check(self, part: Path) -> None:
        """All pieces are here."""
        with part.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != self._digest:
            self._digest = ""
            raise PayloadError(f"an answer of {self._client} is not what it was announced to be")
        (self._folder / "of").write_text(self._letter.digest)
        self.whole = self._folder / "answer"
        part.replace(self.whole)
