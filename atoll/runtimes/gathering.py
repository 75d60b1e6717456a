"""One question to clients over the network, until enough have answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from atoll.errors import PROTOCOL
from atoll.runtimes.account import Question
from atoll.runtimes.held import HELD
from atoll.runtimes.letters import Letter
from atoll.runtimes.lines import Line
from atoll.runtimes.opener import Opener
from atoll.runtimes.post import Post
from atoll.runtimes.spool import Gathered, Why, failure_in
from atoll.status import utc
from atoll.words import listed

__all__ = ["Bounds", "Closing", "Gathering"]

STEP = 0.5
TELL = 8.0
"""Seconds after which it is said what is waited for: every ten, also on a busy machine."""
AGAIN = 30.0
"""Seconds after which a client that failed is asked again, where too few others are left."""


@dataclass(frozen=True)
class Closing:
    """A question is closed when all have answered, or `quorum` have and `grace` seconds passed.

    late: whether an answer after that counts in the client's next round; else it is dropped.
    secret: whether a client is not told who else was asked.
    ends: whether it is closed too when too few are left who could answer a secure sum's attempt.
    """

    quorum: int
    grace: float
    late: bool = False
    secret: bool = False
    ends: bool = False


@dataclass(frozen=True)
class Bounds:
    """Which answers count.

    limit, likely: bytes: the most that are taken, and how many are likely.
    why_not: (client, its answer in the spool) -> why it is none.
    """

    limit: int
    likely: int = 0
    why_not: Callable[[str, Path], Why | None] = failure_in


class Gathering:
    """A question, from its letters to the set of its answers.

    letter: (client, attempt) -> what it is sent.
    what: the question, for people.   note: hears every few seconds what is waited for.
    """

    def __init__(
        self,
        post: Post,
        letter: Callable[[str, int], Letter],
        opener: Opener | None,
        closing: Closing,
        *,
        bounds: Bounds,
        note: Callable[[str], None],
    ) -> None:
        self._post, self._letter, self._opener, self._closing = post, letter, opener, closing
        self._bounds, self._note = bounds, note
        self._found = Gathered()
        self._failed: dict[str, float] = {}
        self._quorum: float | None = None
        self._told = monotonic()

    def run(self, what: str, clients: Sequence[str]) -> Gathered:
        """Ask, and wait until the set of answers is closed; then no letter is waited for."""
        self._post.question = Question(what, clients, self._closing.quorum, utc())
        for client in clients:
            self._ask(client, 0)
        while not self._closed(clients):
            for client, why in self._post.pump(STEP):
                self._fail(client, "payload", why)
            for client in clients:
                self._look(client)
            if monotonic() - self._told > TELL:
                self._tell(what, clients)
        for client in self._waiting(clients):
            then = "counts in the next round" if self._closing.late else "is dropped"
            why = f"no answer in time ({self._standing(client)}); one that comes late {then}"
            self._found.failures.setdefault(client, ("absent", why))
        self._post.question = None
        self._post.forget(clients)
        return self._found

    def _ask(self, client: str, attempt: int) -> None:
        self._found.attempts[client] = attempt
        self._found.failures.pop(client, None)
        if client in self._post.lines:
            letter, bounds = self._letter(client, attempt), self._bounds
            self._post.send(client, letter, limit=bounds.limit, likely=bounds.likely)

    def _waiting(self, clients: Sequence[str]) -> list[str]:
        found = self._found
        return [c for c in clients if c not in found.answers and c not in found.failures]

    def _look(self, client: str) -> None:
        """What has become of one client's part."""
        line = self._post.lines.get(client)
        if client in self._found.answers or client in self._found.failures:
            return
        if line is None:
            self._fail(client, "refused", "its certificate admits it no longer")
            return
        if line.letter is None:  # it was admitted meanwhile
            self._ask(client, self._found.attempts[client])
        opener = self._opener
        if line.unopened and opener is not None:
            self._post.send(client, opener.letter, limit=opener.limit)
        elif line.lacks:  # what it was asked before; so it is asked what the others are
            self._ask(client, self._found.attempts[client] + 1)
        elif line.answer is None:
            return
        elif opener is not None and line.letter is opener.letter:
            why = opener.judged(client, line.answer)
            if why is None:
                self._ask(client, self._found.attempts[client])
            else:
                self._refuse(client, line, why)
        elif failure := self._bounds.why_not(client, line.answer):
            if failure[0] == HELD and self._found.attempts[client] == 0:
                self._ask(client, 1)
            else:
                self._fail(client, *failure)
        else:
            self._found.answers[client] = line.answer

    def _refuse(self, client: str, line: Line, why: str) -> None:
        """Where cohorts are secret no failure is told by name; who takes no part has no secret."""
        before = line.account.fault
        if self._closing.secret and (before is None or before.message != why):
            self._note(f"{client} takes no part: {why}")
        self._fail(client, "refused", why)

    def _fail(self, client: str, kind: str, why: str) -> None:
        if client not in self._found.answers:
            self._found.failures[client] = (kind, why)
            self._failed[client] = monotonic()
            self._post.forget([client])
            if client in self._post.lines:
                self._post.lines[client].account.fail(kind, why)

    def _closed(self, clients: Sequence[str]) -> bool:
        """Whether the set is closed; where it cannot be, failed clients are asked again."""
        answered, now = len(self._found.answers), monotonic()
        waiting = self._waiting(clients)
        if answered >= self._closing.quorum:
            self._quorum = self._quorum or now
            return not waiting or now - self._quorum > self._closing.grace
        for client in list(self._found.failures):
            if now - self._failed[client] > AGAIN:
                self._ask(client, self._found.attempts[client] + 1)
        kinds = [kind for kind, _ in self._found.failures.values()]
        return self._closing.ends and len(clients) - kinds.count(PROTOCOL) < self._closing.quorum

    def _tell(self, what: str, clients: Sequence[str]) -> None:
        self._told = monotonic()
        failed = [f"{c} ({why})" for c, (_, why) in self._found.failures.items()]
        parts = [f"{what}: {len(self._found.answers)} of {len(clients)} have answered"]
        waiting = [f"{client} ({self._standing(client)})" for client in self._waiting(clients)]
        parts += [f"waiting for {listed(waiting)}"] if waiting else []
        if len(self._found.answers) < self._closing.quorum:
            parts.append(f"{self._closing.quorum} are needed")
        self._note("; ".join(parts + ([f"failed: {listed(failed)}"] if failed else [])))

    def _standing(self, client: str) -> str:
        line = self._post.lines.get(client)
        if line is None or line.node is None:
            return "not connected"
        return f"{line.state or 'asked'}, last heard {monotonic() - line.heard:.0f} s ago"
