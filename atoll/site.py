"""A client's own process: opened by a server's experiment, it answers with what its policy lets go.

Base model, data, policy and records stay loaded here from one round to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from atoll.core import Failure, Payload, Reply, Task
from atoll.egress.record import Departure, Egress
from atoll.errors import AtollError, PolicyError
from atoll.experiment.broadcasts import Broadcasts
from atoll.experiment.hiding import keep_noise
from atoll.experiment.joining import Place, check_overrides, joined, offered, taken_up
from atoll.experiment.local_arm import LOCAL, local_arm
from atoll.experiment.parties import check_sums
from atoll.experiment.setup import Setup
from atoll.experiment.site_ledger import SiteLedger, asked_for
from atoll.experiment.terms import Opening
from atoll.frames import Frame, Kind
from atoll.policy import check_now, check_reply, paused, released, told, told_error
from atoll.protection.speaking import SPEAKING
from atoll.runtimes.flower_client import Guard, answer_ask, refusal
from atoll.runtimes.held import HELD, Held
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.letters import OPENING, frames_in
from atoll.runtimes.mailbox import Mailbox, Received
from atoll.runtimes.messages import read
from atoll.runtimes.store import disk_store
from atoll.servers.values import ADAPTER
from atoll.status import Doing

__all__ = ["Site"]

Send = Callable[[Frame], None]


@dataclass(frozen=True)
class _Federation:
    """A federation that this process was opened for."""

    runtime: InProcess
    guard: Guard
    held: Held


class Site:
    """Answers letters; `note` hears what is done, for the person at the site.

    egress: where everything is written down that leaves; None in trials without a key.
    doing: where it is told what this site does.
    """

    def __init__(
        self,
        place: Place,
        egress: Egress | None,
        note: Callable[[str], None],
        doing: Doing | None = None,
    ) -> None:
        check_overrides(place.overrides)
        self._place, self._egress, self._note = place, egress, note
        self._doing = doing or Doing()
        self._ledger = SiteLedger(place.state, place.name, place.policy)
        self._open: dict[str, _Federation] = {}

    def knows(self, run: str) -> bool:
        """Whether this process was opened for a federation."""
        return run in self._open

    def work(self, mailbox: Mailbox) -> None:
        """Answer letters for ever."""
        for letter in mailbox.letters():
            mailbox.answer(letter, partial(self._answered, letter))

    def _answered(self, letter: Received, send: Send) -> None:
        try:
            if letter.name.startswith(OPENING):
                self._doing.begins(0, "opening")
                with self._doing.refusing():
                    frame = self._opened(letter)
                send(frame)
            else:
                federation = self._open[letter.run]
                answer_ask(federation.runtime, federation.guard, federation.held, letter.data, send)
        except Exception as error:
            # The server hears of it in any case; what is a bug shows here too.
            kind = "" if isinstance(error, AtollError) else f"{type(error).__name__}: "
            self._note(f"no answer to {letter.name}: {kind}{error}")
            frame = refusal(told_error(self._place.policy, error))
            self._leaves(letter.run, "failure", frame.data)
            send(frame)
        finally:
            self._doing.ends(letter.name)

    def _opened(self, letter: Received) -> Frame:
        """Look at the experiment, and say what this site brings to it."""
        (frame,) = frames_in(letter.data, kinds=[Kind.OPEN])
        opening = read(Opening, frame.data)
        self._check_paused()
        loaded = taken_up(opening, letter.run, self._place)
        offer = offered(loaded, self._place)
        if opening.agreed is not None:
            setup = joined(letter.run, loaded, opening.agreed, self._place, self._note)
            if hiding := setup.protection or setup.rows:
                self._ledger.check(letter.run, hiding)
            offer = offer.model_copy(update={"base": opening.agreed.base})
            self._open = {letter.run: self._federation(letter.run, setup)}
            self._doing.run = letter.run
            self._note(f"taking part in federation {letter.run}")
        data = offer.model_dump_json().encode()
        self._leaves(letter.run, "opening", data)
        return Frame(Kind.READY, 0, data)

    def _federation(self, run: str, setup: Setup) -> _Federation:
        algorithms = {**setup.program.algorithms, LOCAL: local_arm(setup)}
        keep_noise(self._place.state / run, setup.protection, setup.rows)
        store = disk_store(self._place.state / run / "client_state")
        runtime = InProcess((self._place.name,), algorithms, store)
        guard = self._guard(run, setup)
        return _Federation(runtime, guard, Held(algorithms, setup.start.server.get(ADAPTER)))

    def _guard(self, run: str, setup: Setup) -> Guard:
        policy, kind = self._place.policy, setup.experiment.model.task
        secure = bool(setup.experiment.privacy.secure_aggregation)
        spent: list[float | None] = [None]
        broadcasts = Broadcasts(setup, self._place.name)

        def begin(tasks: Sequence[Task]) -> None:
            what = ", ".join(task.algorithm for task in tasks)
            self._doing.begins(tasks[0].context.round, what)
            with self._doing.refusing():
                self._check_paused()
                check_now(policy, datetime.now())
                check_sums(setup, tasks[-1].context.at(self._place.name), policy)
                spent[0] = self._spends(run, setup, tasks)
            self._note(f"round {tasks[0].context.round}: {what}")

        def takes(tasks: Sequence[Task]) -> None:
            if policy.guard:
                with self._doing.refusing(self._note):
                    broadcasts.take(tasks)

        def release(payload: Payload) -> Payload:
            with self._doing.refusing():
                return released(policy, payload, task=kind)

        def spoken(failure: Failure) -> Failure:
            # Not what went wrong, but what a process that has begun asks for.
            began = failure.kind == HELD
            self._note("the whole adapter is asked for: none is here to take a step from" if began
                       else f"no answer ({failure.kind}): {failure.message}")  # fmt: skip
            return told(policy, failure)

        def leaving(task: Task, record: Reply | Failure, data: bytes) -> None:
            payload, text, what = None, None, task.algorithm
            if isinstance(record, Reply):
                payload = record.payload
                with self._doing.refusing(self._note):
                    # Who pauses while it trains wants nothing of it to leave.
                    self._check_paused()
                    check_reply(policy, payload, nbytes=len(data), task=kind, sealed=secure)
            else:
                text, what = record.message, "failure"
            if self._egress is not None:
                at = task.context
                self._egress.append(
                    Departure(run, at.round, at.exchange, what, payload, data, text, spent[0])
                )

        def failed(data: bytes) -> None:
            self._leaves(run, "failure", data)

        return Guard(begin, release, spoken, leaving, failed, takes)

    def _spends(self, run: str, setup: Setup, tasks: Sequence[Task]) -> float | None:
        """What all runs here spend with this one, on the disk before anything trains."""
        protection = setup.protection or setup.rows
        if not setup.experiment.privacy.hides:
            return None
        if strange := [one.algorithm for one in tasks if one.algorithm not in ("train", SPEAKING)]:
            raise PolicyError("privacy", f"a private run asks for training alone, not {strange[0]}")
        trained = [one for one in tasks if one.algorithm == "train"]
        if protection is None or not trained:
            return None
        asked = asked_for(trained[0], self._place.name, protection)
        return self._ledger.write(run, protection, asked)

    def _check_paused(self) -> None:
        if paused(self._place.state):
            raise PolicyError("paused", "the site has paused; `atoll client resume` goes on")

    def _leaves(self, run: str, task: str, data: bytes) -> None:
        if self._egress is not None:
            self._egress.append(Departure(run, 0, 0, task, None, data, data.decode()))
