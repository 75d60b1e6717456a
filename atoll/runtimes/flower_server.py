"""Clients on machines of their own, over Flower's Grid: the runtime of `atoll server`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from atoll.core import Algorithm, Context, Failure, Reply, Task, payload_nbytes
from atoll.frames import LIMIT
from atoll.round import decoded
from atoll.runtimes.gathering import Bounds, Closing, Gathering
from atoll.runtimes.letters import Letter
from atoll.runtimes.opener import Opener
from atoll.runtimes.outgoing import Outgoing, attempts
from atoll.runtimes.post import Post
from atoll.runtimes.spool import (
    Gathered,
    Why,
    answers_in,
    failure_in,
    journal,
    journalled,
    letter_name,
    sweep,
)

__all__ = ["Flower"]

ROOM = 2**20
"""Bytes beside the values of an answer: names, shapes, and what a stage adds."""


class _Late(NamedTuple):
    """A letter that was not answered in time, by its name alone, and its moment."""

    letter: Letter
    context: Context


class Flower:
    """A runtime: `roster` is who takes part.

    algorithms: the program's, by the names that tasks carry.   closing: when a question is over.
    note: hears what is waited for.   rounds: the first and the last in which each client answered.
    """

    def __init__(
        self,
        post: Post,
        roster: Sequence[str],
        algorithms: Mapping[str, Algorithm],
        opener: Opener,
        closing: Closing,
        *,
        note: Callable[[str], None],
    ) -> None:
        self._post, self._algorithms, self._opener = post, algorithms, opener
        self._roster, self._closing, self._note = set(roster), closing, note
        self.rounds: dict[str, tuple[int, int]] = {}
        self._late: dict[str, _Late] = {}

    @property
    def roster(self) -> tuple[str, ...]:
        """Every client that can be asked now: one that joined since, and none that was revoked."""
        for client, line in self._post.lines.items():
            if client in self._roster or line.node is None:
                continue
            if line.letter is None:
                self._post.send(client, self._opener.letter, limit=self._opener.limit)
            elif line.answer is not None:
                why = self._opener.judged(client, line.answer)
                self._post.forget([client])
                if why is None:
                    self._roster.add(client)
                else:
                    line.account.fail("refused", why)
                self._note(f"{client} " + (f"is refused: {why}" if why else "has joined"))
        return tuple(sorted(self._roster & self._post.lines.keys()))

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        """Ask clients; when the set of answers is closed, they come in the clients' order."""
        if not tasks or not clients:
            return
        context, name = tasks[0].context, letter_name(tasks[0].context)
        folder = self._post.spool / name
        sweep(self._post.spool, context.round)
        found = self._closed(tasks, clients, folder)
        if found is None:
            found = self._gathered(tasks, clients, name)
            journal(folder, found)
        limit = self._bounds(tasks, clients).limit
        for client in clients:
            if client in found.answers:
                first, _ = self.rounds.get(client, (context.round, context.round))
                self.rounds[client] = (first, context.round)
                again = found.attempts.get(client, 0)
                yield from self._replies(tasks, client, found.answers[client], limit, again)
                if self._takes_late(tasks):
                    self._late.pop(client, None)
            else:
                kind, why = found.failures[client]
                yield from (Failure(client, kind, why) for _ in tasks)

    def _replies(
        self, tasks: Sequence[Task], client: str, path: Path, limit: int, again: int = 0
    ) -> Iterator[Reply | Failure]:
        """The replies of one client; those to a letter of before tell when that was."""
        late = self._late.get(client)
        asked = late.context if late and path.parent.parent.name == late.letter.name else None
        found = answers_in(path, client, len(tasks), limit)
        return (replace(r, late=asked, again=again) if isinstance(r, Reply) else r for r in found)

    def _closed(
        self, tasks: Sequence[Task], clients: Sequence[str], folder: Path
    ) -> Gathered | None:
        """The set as an earlier process closed it, if its answers are to these very questions."""
        names, letters = journalled(folder), self._letters(tasks, folder.name)
        if names is None:
            return None
        found = Gathered()
        for client in clients:
            place = folder / client
            whole = client in names and (place / "answer").is_file()
            sent = attempts(letters, client) if whole else {}
            if client not in names:
                found.failures[client] = ("absent", "it had not answered when the set was closed")
            elif whole and (of := (place / "of").read_text()) in sent:
                found.answers[client], found.attempts[client] = place / "answer", sent[of]
            else:
                return None
        return found

    def _gathered(self, tasks: Sequence[Task], clients: Sequence[str], name: str) -> Gathered:
        letters = self._letters(tasks, name)
        closing = self._closing
        if len(clients) == 1:  # the holder of a key, whom no other can stand in for
            closing = replace(closing, quorum=min(closing.quorum, 1))
        gathering = Gathering(
            self._post, letters, self._opener, closing,
            bounds=self._bounds(tasks, clients), note=self._note,
        )  # fmt: skip
        what = f"round {tasks[0].context.round}: {', '.join(task.algorithm for task in tasks)}"
        found = gathering.run(what, clients)
        if self._takes_late(tasks):
            self._remember(tasks[0].context, letters, found)
        return found

    def _takes_late(self, tasks: Sequence[Task]) -> bool:
        """Whether answers count that come after these questions are closed."""
        (kind, *_) = [self._algorithms[task.algorithm].kind for task in tasks]
        return self._closing.late and len(tasks) == 1 and kind == "round"

    def _remember(
        self, context: Context, letters: Callable[[str, int], Letter], found: Gathered
    ) -> None:
        """Who still owes an answer is asked for that one in its next round."""
        for client, (kind, _) in found.failures.items():
            if kind == "absent" and client not in self._late:
                self._late[client] = _Late(letters(client, found.attempts[client]).named(), context)

    def _letters(self, tasks: Sequence[Task], name: str) -> Callable[[str, int], Letter]:
        if self._closing.secret:
            tasks = [replace(one, context=replace(one.context, cohort=())) for one in tasks]
        # Who cannot build on what it was sent before is asked again, with all of it.
        travels = [replace(task, broadcast=task.travels) for task in tasks]
        packed = Outgoing(travels, name, self._post.sent / "packed")
        whole = Outgoing(tasks, name, self._post.sent / "whole")
        late = self._late if self._takes_late(tasks) else {}

        def letter(client: str, attempt: int) -> Letter:
            if client in late and attempt == 0:
                return late[client].letter
            return (whole if attempt else packed).letter(client, attempt)

        return letter

    def _bounds(self, tasks: Sequence[Task], clients: Sequence[str]) -> Bounds:
        """How large an answer is that could be right."""
        values = 0
        for task in tasks:
            like = self._algorithms[task.algorithm].client.template(task.broadcast(clients[0]))
            values += payload_nbytes(like)
        return Bounds(2 * values + len(tasks) * ROOM, values, partial(self._why_not, tasks))

    def _why_not(self, tasks: Sequence[Task], client: str, path: Path) -> Why | None:
        """Why an answer does not count: what cannot be folded is no part of a quorum."""
        if told := failure_in(client, path):
            return told
        for task, reply in zip(tasks, self._replies(tasks, client, path, LIMIT), strict=True):
            algorithm = self._algorithms[task.algorithm]
            like = algorithm.client.template(task.broadcast(client))
            judged = decoded(algorithm, task.context, reply, like)
            if isinstance(judged, Failure):
                return judged.kind, judged.message
        return None
