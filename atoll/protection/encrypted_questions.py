"""The steps of an encrypted sum as questions of a runtime, and what they weigh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from atoll.ckks import Agreed
from atoll.core import Failure, Reply, Runtime, Task, payload_nbytes
from atoll.errors import ClosedError
from atoll.protection.speaking import SPEAKING, at_step, heard, question_of

__all__ = ["Questions"]


@dataclass
class Questions:
    """Of one sum.

    moved: bytes up and down.   answered: clients whose replies to the round's own question are
    added up.
    """

    runtime: Runtime
    task: Task
    agreed: Agreed
    moved: list[int] = field(default_factory=lambda: [0, 0])
    answered: Sequence[str] = ()

    def step(
        self, step: str, message: bytes, room: int, clients: Sequence[str], again: int = 0
    ) -> Task:
        """A question that is to be asked of some; again: how often it was asked before."""
        question = question_of(message, room)
        self.moved[1] += payload_nbytes(question) * len(clients)
        # Their states of this round are those that count, before a position says so.
        now = {name: self.task.context.exchange for name in clients if name in self.answered}
        moment = at_step(self.task.context, step, again)
        return Task(SPEAKING, moment, lambda client: question, {**self.task.folded, **now})

    def said(self, task: Task, clients: Sequence[str]) -> Iterator[tuple[str, bytes | Failure]]:
        """What each of them answers, or why it does not."""
        # To the end: a runtime takes it for given up else.
        replies = {reply.client: reply for reply in list(self.runtime.call([task], clients))}
        for name in clients:
            reply = replies.get(name, Failure(name, "absent", "it is not here"))
            if isinstance(reply, Reply):
                self.moved[0] += payload_nbytes(reply.payload)
            yield name, heard(reply)

    def holder(self, step: str, message: bytes, room: int, again: int = 0) -> bytes:
        """What the holder answers to a step.

        Raises:
            ClosedError: when it does not.
        """
        holder = self.agreed.holder
        task = self.step(step, message, room, (holder,), again)
        ((_, said),) = self.said(task, (holder,))
        if isinstance(said, Failure):
            why = said.message
            raise ClosedError(f"{holder}, who holds the key of this sum, does not answer: {why}")
        return said
