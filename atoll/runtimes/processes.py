"""Clients in processes of this machine: each works for some of them, and all at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

from atoll.core import Failure, Reply, Task
from atoll.errors import PayloadError
from atoll.frames import Kind
from atoll.runtimes.asking import Asking
from atoll.runtimes.assignment import assign
from atoll.runtimes.desks import Desk, Turn, heard, record_of
from atoll.runtimes.messages import error_of
from atoll.runtimes.workers import Hire, Worker
from atoll.words import listed

__all__ = ["Processes"]

RETRIES = 1
"""How often a client is asked again after its worker died; then it has failed."""


class Processes:
    """A runtime of up to `workers` processes; a context manager.

    rows: the roster, with the rows by which clients are shared out.
    note: hears of deaths and of long silence, and what workers say.

    A client stays with its worker through a round. Where a worker dies, another takes its place,
    and the clients that are still owed an answer are asked again, each alone: that needs the least
    memory, and one that kills its worker takes no other with it.
    """

    def __init__(
        self, hire: Hire, rows: Mapping[str, int], *, workers: int, note: Callable[[str], None]
    ) -> None:
        self._hire, self._rows, self._note = hire, dict(rows), note
        self._size = min(workers, len(rows))
        self._desks: list[Desk] = []
        self._number = 0
        self._round: int | None = None
        self._places: dict[str, int] = {}

    @property
    def roster(self) -> tuple[str, ...]:
        """Every client that can be asked."""
        return tuple(self._rows)

    def __enter__(self) -> Processes:
        try:
            for number in range(self._size):
                self._desks.append(Desk(number, Worker(self._hire, number + 1, self._note)))
            for desk in self._desks:
                desk.worker.ready()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        for desk in self._desks:
            desk.worker.close()

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        """Ask clients; answers come as the workers give them.

        Raises:
            AtollError: what ends the run at a worker, or a worker that cannot be replaced.
        """
        if not tasks or not clients:
            return
        turn = Turn(Asking(tasks, number=self._number))
        self._seat(turn, clients)
        try:
            for desk in self._desks:
                self._next(desk, turn)
            while busy := [desk for desk in self._desks if desk.batch]:
                for desk, speaks in heard(busy):
                    yield from self._took(desk, turn, speaks)
        finally:
            self._number = turn.asking.number
            for desk in self._desks:
                desk.batches.clear()
                if desk.batch:  # Nobody waits for these answers any more.
                    desk.worker.close()
                    desk.batch = ()

    def _seat(self, turn: Turn, clients: Sequence[str]) -> None:
        """Share the clients out, each to the desk that it had earlier in the round."""
        round, size = turn.asking.tasks[0].context.round, turn.asking.at_once(clients)
        kept = self._places if round == self._round else {}
        placed = assign(clients, self._rows, workers=len(self._desks), kept=kept)
        self._round, self._places = round, {**kept, **placed}
        for desk in self._desks:
            own = [client for client in clients if placed[client] == desk.number]
            starts = range(0, len(own), size)
            desk.batches.extend(tuple(own[start : start + size]) for start in starts)

    def _next(self, desk: Desk, turn: Turn) -> None:
        """Send the next batch of a desk, to a new worker where there is none."""
        desk.batch, desk.came = (desk.batches.popleft() if desk.batches else ()), Counter()
        if not desk.batch:
            return
        if desk.worker.ended:
            desk.worker.close()
            desk.worker = Worker(self._hire, desk.number + 1, self._note)
            desk.worker.ready()
        desk.worker.silence.doing = f"it works for {listed(desk.batch)}"
        desk.worker.send(turn.asking.frames(desk.batch, desk.worker.held))

    def _took(self, desk: Desk, turn: Turn, speaks: bool) -> Iterator[Reply | Failure]:
        """What the next frame of a desk's worker, or its end, comes to."""
        try:
            frame = desk.worker.receive() if speaks else None
            record = record_of(frame, desk, turn) if frame and frame.kind is Kind.RECORD else None
        except PayloadError as error:
            desk.worker.close()
            yield from self._died(desk, turn, f"sent what cannot be read ({error})")
            return
        if frame is None:
            yield from self._died(desk, turn, desk.worker.ending())
        elif frame.kind is Kind.BROKEN:
            raise error_of(frame.data, worker=desk.worker.name)
        elif frame.kind is Kind.NOTE:
            self._note(frame.data.decode(errors="replace"))
        elif frame.kind is Kind.DONE:
            self._next(desk, turn)
        elif record is not None and desk.came[record.client] > turn.answered[record.client]:
            turn.answered[record.client] += 1
            yield record

    def _died(self, desk: Desk, turn: Turn, how: str) -> Iterator[Failure]:
        """Ask those again who are still owed an answer; who was asked often enough has failed."""
        owed = [client for client in desk.batch if turn.owed(client)]
        turn.deaths.update(owed)
        again = [client for client in owed if turn.deaths[client] <= RETRIES]
        desk.batches.extendleft((client,) for client in reversed(again))
        asked = f"; another is asked again for {listed(again)}" if again else ""
        self._note(f"{desk.worker.name} {how}{asked}")
        for client in owed:
            while client not in again and turn.owed(client):
                turn.answered[client] += 1
                yield Failure(client, "worker", f"its worker died each time: it {how}")
        self._next(desk, turn)
