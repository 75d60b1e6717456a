"""The server's side of letters: what each client has been sent, and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from atoll.errors import PayloadError
from atoll.flower.parcels import Stored
from atoll.runtimes.account import Account
from atoll.runtimes.incoming import Incoming
from atoll.runtimes.letters import INLINE, OPENING, UNREAD, Answer, Call, Letter, Piece
from atoll.runtimes.underway import Underway
from atoll.words import printable

__all__ = ["Line"]

AHEAD = 2
"""Messages on their way to one client: a piece travels while the one before is looked at."""
QUIET = 12.0
"""Seconds without an answer, of which a client takes eight, after which another message follows."""
REST = 1.0
"""Seconds in which a client is sent nothing after a message that was lost."""


@dataclass
class Line:
    """One client's connection: the letter that it is to answer, and the answer so far.

    node: Flower's number for it, while it is connected.   since: when that began.
    session: the process that answers.   served: when it was sent something last.
    rest: seconds in which it is sent nothing after a message that was lost.
    account: what people are told of it.
    spool: the folder where answers are kept.
    """

    client: str
    run: str
    spool: Path
    node: int | None = None
    since: str = ""
    session: str = ""
    letter: Letter | None = None
    likely: int = 0
    rest: float = REST
    unopened: bool = False
    heard: float = field(default_factory=monotonic)
    served: float = 0.0
    state: str = ""
    account: Account = field(default_factory=Account)
    _underway: Underway = field(default_factory=Underway)
    _again: float = 0.0
    _missing: set[int] = field(default_factory=set)
    _incoming: Incoming | None = None

    @property
    def answer(self) -> Path | None:
        """Where the answer to the letter is, once all of it is here."""
        return self._incoming.whole if self._incoming is not None else None

    @property
    def done(self) -> bool:
        """Whether the whole answer is here."""
        return self.letter is not None and self.answer is not None

    @property
    def lacks(self) -> bool:
        """Whether the client does not have a letter of which only the name is left here."""
        return self.letter is not None and self.letter.gone and self.state == "incomplete"

    @property
    def large(self) -> bool:
        """Whether the answer is too large to come along unasked."""
        size = 0 if self._incoming is None else self._incoming.size
        return max(size, self.likely) > INLINE

    @property
    def fetching(self) -> int:
        """How many pieces of it are on their way, as far as they are still to be hoped for."""
        return self._underway.fetching

    def connected(self, node: int, since: str) -> None:
        """It is there, perhaps again: what was on its way before is lost."""
        if (node, since) != (self.node, self.since):
            self._underway.clear()
        self.node, self.since = node, since

    def send(self, letter: Letter, *, limit: int, likely: int = 0) -> None:
        """Begin with a letter; an answer in the spool counts, unless it opened a process.

        likely: bytes of the answer, as far as they can be known.
        """
        self.letter, self.likely, self.state = letter, likely, "asked"
        self.account.failed = False
        self._missing = set() if letter.gone else set(range(letter.pieces))
        self.unopened = False
        self._underway.only_questions()
        folder = self.spool / letter.name / self.client
        self._incoming = Incoming(self.client, letter, folder, limit)
        if not letter.name.startswith(OPENING):
            self._incoming.find()

    def due(self) -> tuple[Call, Piece] | None:
        """The next message to send, if there is one now."""
        incoming = self._incoming
        if self.node is None or self.letter is None or incoming is None:
            return None
        if self.done or self.unopened:
            return None
        now = monotonic()
        if now < self._again:
            return None
        mine = self._underway.about(self.letter.digest)
        if len(self._underway) >= AHEAD:
            return None
        going, fetching = {one.call.piece for one in mine}, {one.call.fetch for one in mine}
        pieces, wanted = sorted(self._missing - going), sorted(incoming.wanted - fetching)
        if pieces:
            return self._call(piece=pieces[0])
        if wanted:
            return self._call(fetch=wanted[0])
        if not incoming.size and self.large and 0 not in fetching:
            # A large answer does not come unasked: what waits at the door asks for its beginning.
            return self._call(fetch=0)
        going_on = incoming.size or (mine and now - self.served < QUIET)
        return None if going_on else self._call()

    def asks(self, tag: int) -> bool:
        """Whether a message is about the letter of now."""
        return self.letter is not None and self._underway.digest(tag) == self.letter.digest

    def went(self, tag: int, call: Call, nbytes: int) -> None:
        """A message is on its way, under a number by which its answer is known."""
        self.served = monotonic()
        self._underway.went(tag, call, nbytes)
        self.account.down += nbytes

    def lost(self, tag: int) -> None:
        """A message has no answer."""
        self._underway.lost(tag)
        self._again = monotonic() + self.rest

    def place(self, call: Call) -> Stored:
        """Where a large body of the answer to a message belongs."""
        assert self._incoming is not None
        return self._incoming.place(call.fetch or 0)

    def take(self, tag: int, answer: Answer, body: memoryview | int) -> None:
        """An answer to a message; its body, or how many bytes of it are in their place.

        Raises:
            PayloadError: one that does not hold what it says, or more than is taken.
        """
        sent = self._underway.back(tag)
        self.heard = monotonic()
        self.account.up += body if isinstance(body, int) else len(body)
        self.session = answer.session
        incoming = self._incoming
        if self.letter is None or incoming is None or self.done:
            return
        if sent is None or sent.call.digest != self.letter.digest:
            return  # a late answer to what was asked before
        if answer.letter not in (self.letter.name, UNREAD):
            raise PayloadError(
                f"{self.client} answers {self.letter.name} with its answer to {answer.letter}"
            )
        self.state, self.unopened = answer.state, answer.state == "unopened"
        lacking = answer.state == "incomplete" and not self.letter.gone
        self._missing = set(answer.missing) if lacking else set()
        if answer.state == "refused":
            raise PayloadError(f"{self.client} does not read it: {printable(answer.why)}")
        if answer.state != "done":
            return
        incoming.announced(answer)
        if answer.piece is None:
            return
        if isinstance(body, int) and answer.piece != (sent.call.fetch or 0):
            raise PayloadError(f"{self.client} sends a piece that was not asked for")
        incoming.keep(answer.piece, body)

    def _call(self, *, piece: int | None = None, fetch: int | None = None) -> tuple[Call, Piece]:
        assert self.letter is not None
        head = Call(
            run=self.run, letter=self.letter.name, size=self.letter.size,
            digest=self.letter.digest, piece=piece, fetch=fetch,
        )  # fmt: skip
        return head, Piece() if piece is None else self.letter.piece(piece)
