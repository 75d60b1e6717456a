"""The server's side of letters: what each client has been sent, and what came back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from atoll.errors import PayloadError
from atoll.runtimes.letters import INLINE, OPENING, PIECE, Answer, Call, Letter, pieces_of

__all__ = ["Line", "Sent"]

AHEAD = 2
"""Messages on their way to one client: while it answers one, the next waits at its door."""
LOST = 60.0
"""Seconds after which a message without an answer is sent again …"""
SLOWEST = 20_000
"""… and one more for each so many bytes."""


class Sent(NamedTuple):
    """A message on its way."""

    call: Call
    at: float
    nbytes: int


@dataclass
class Line:
    """One client's connection: the letter that it is to answer, and the answer so far.

    node: Flower's number for it, while it is connected.   since: when that began.
    session: the process that answers.   limit: bytes of the largest answer that is taken.
    spool: the folder where answers are kept.
    """

    client: str
    run: str
    spool: Path
    node: int | None = None
    since: str = ""
    session: str = ""
    letter: Letter | None = None
    limit: int = 0
    likely: int = 0
    unopened: bool = False
    heard: float = field(default_factory=monotonic)
    state: str = ""
    _sent: dict[int, Sent] = field(default_factory=dict)
    _missing: set[int] = field(default_factory=set)
    _size: int = 0
    _digest: str = ""
    _wanted: set[int] = field(default_factory=set)
    _answer: Path | None = None

    @property
    def path(self) -> Path:
        """Where the answer to the letter is kept."""
        assert self.letter is not None
        return self.spool / self.letter.name / self.client / "answer"

    @property
    def done(self) -> bool:
        """Whether the whole answer is here."""
        return self.letter is not None and self._answer is not None

    @property
    def large(self) -> bool:
        """Whether the answer is too large to come along unasked."""
        return max(self._size, self.likely) > INLINE

    @property
    def fetching(self) -> int:
        """How many pieces of it are on their way."""
        return sum(sent.call.fetch is not None for sent in self._sent.values())

    def connected(self, node: int, since: str) -> None:
        """It is there, perhaps again: what was on its way before is lost."""
        if (node, since) != (self.node, self.since):
            self._sent.clear()
        self.node, self.since = node, since

    def send(self, letter: Letter, *, limit: int, likely: int = 0) -> None:
        """Begin with a letter; an answer in the spool counts, unless it opened a process.

        likely: bytes of the answer, as far as they can be known.
        """
        self.letter, self.limit, self.likely, self.state = letter, limit, likely, "asked"
        self._missing, self._size, self._digest = set(range(letter.pieces)), 0, ""
        self._wanted, self._answer, self.unopened = set(), None, False
        self._sent = {tag: sent for tag, sent in self._sent.items() if sent.call.piece is None}
        kept = self.path.is_file() and not letter.name.startswith(OPENING)
        if kept and self.path.with_name("of").read_text() == letter.digest:
            self._answer = self.path

    def due(self) -> tuple[Call, list[bytes]] | None:
        """The next message to send, if there is one now."""
        if self.node is None or self.letter is None or self.done or self.unopened:
            return None
        now = monotonic()
        for tag, sent in list(self._sent.items()):
            if now - sent.at > LOST + sent.nbytes / SLOWEST:
                del self._sent[tag]
        if len(self._sent) >= AHEAD:
            return None
        going = {sent.call.piece for sent in self._sent.values()}
        fetching = {sent.call.fetch for sent in self._sent.values()}
        pieces, wanted = sorted(self._missing - going), sorted(self._wanted - fetching)
        if pieces:
            return self._call(piece=pieces[0])
        if wanted:
            return self._call(fetch=wanted[0])
        if self._size:
            # All of it is on its way; one more message keeps the client awake for what comes next.
            return None if len(self._sent) > 1 else self._call()
        # A large answer does not come unasked: what waits at the door asks for its beginning.
        return self._call(fetch=0 if self.large and 0 not in fetching else None)

    def went(self, tag: int, call: Call, nbytes: int) -> None:
        """A message is on its way, under a number by which its answer is known."""
        self._sent[tag] = Sent(call, monotonic(), nbytes)

    def lost(self, tag: int) -> None:
        """A message has no answer."""
        self._sent.pop(tag, None)

    def take(self, tag: int, answer: Answer, body: memoryview) -> None:
        """An answer to a message.

        Raises:
            PayloadError: one that does not hold what it says, or more than is taken.
        """
        sent = self._sent.pop(tag, None)
        self.heard = monotonic()
        self.session = answer.session
        if self.letter is None or answer.letter != self.letter.name or self.done:
            return
        if sent is None or sent.call.digest != self.letter.digest:
            return  # a late answer to what was asked before
        self.state, self.unopened = answer.state, answer.state == "unopened"
        self._missing = set(answer.missing) if answer.state == "incomplete" else set()
        if answer.state != "done":
            return
        self._announced(answer)
        if answer.piece is not None:
            self._keep(answer.piece, body)

    def _announced(self, answer: Answer) -> None:
        """What the answer will be like; the first word on that counts."""
        if answer.size > self.limit:
            raise PayloadError(
                f"{self.client} announces an answer of {answer.size:,} bytes; at most "
                f"{self.limit:,} are read"
            )
        if (answer.size, answer.digest) != (self._size, self._digest):
            self._size, self._digest = answer.size, answer.digest or ""
            self._wanted = set(range(pieces_of(answer.size)))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.with_name("part").unlink(missing_ok=True)

    def _keep(self, piece: int, body: memoryview) -> None:
        number = pieces_of(self._size)
        whole = PIECE if piece + 1 < number else self._size - (number - 1) * PIECE
        if piece >= number or len(body) != whole:
            raise PayloadError(
                f"piece {piece} of {number} of an answer of {self.client} came with "
                f"{len(body):,} bytes"
            )
        part = self.path.with_name("part")
        with part.open("r+b" if part.exists() else "w+b") as opened:
            opened.seek(piece * PIECE)
            opened.write(body)
        self._wanted.discard(piece)
        if not self._wanted:
            self._whole()

    def _whole(self) -> None:
        """All pieces are here."""
        part = self.path.with_name("part")
        with part.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != self._digest:
            self._digest = ""
            raise PayloadError(f"an answer of {self.client} is not what it was announced to be")
        assert self.letter is not None
        self.path.with_name("of").write_text(self.letter.digest)
        part.replace(self.path)
        self._answer = self.path

    def _call(
        self, *, piece: int | None = None, fetch: int | None = None
    ) -> tuple[Call, list[bytes]]:
        assert self.letter is not None
        head = Call(
            run=self.run, letter=self.letter.name, size=self.letter.size,
            digest=self.letter.digest, piece=piece, fetch=fetch,
        )  # fmt: skip
        return head, [] if piece is None else self.letter.piece(piece)
