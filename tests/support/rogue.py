"""A site with a key of the federation that answers as it should, until a round has a misdeed.

It connects as sites do, through a SuperNode and a relay of ours, and trains for real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from atoll.core import Reply
from atoll.core.wire import pack, unpack
from atoll.experiment.joining import Place
from atoll.flower.site import Connection
from atoll.flower.site import Site as Engine
from atoll.frames import Frame, Kind
from atoll.policy import Policy
from atoll.runtimes.letters import Answer, Call, unpacked
from atoll.runtimes.mailbox import Mailbox, Received
from atoll.site import Site

__all__ = ["Misdeed", "Rogue"]

Bend = Callable[[Reply], Reply]
Say = Callable[["Rogue", Call, bytes], bytes]
Send = Callable[[Frame], None]
POLICY = Policy(label_names=True, min_rows=1, models=("any",), guard=False)


@dataclass(frozen=True)
class Misdeed:
    """What a site does instead of what it should; as it stands here, nothing.

    bend: makes another reply of an honest one.
    say: (the site, a call, the honest answer) -> what it says once, when it has an answer; then it
        says what it should.
    again: what it says to every call after that.
    """

    bend: Bend = lambda reply: reply
    say: Say = lambda rogue, call, honest: honest
    again: Say = lambda rogue, call, honest: honest


class Rogue:
    """Runs in threads of this process, from `data/NAME` and `fed/NAME` in a folder.

    misdeeds: by round.   said: the honest answer to each letter.
    repeated: letters that it was asked for again after that.
    """

    def __init__(
        self, name: str, folder: Path, server: str, misdeeds: Mapping[int, Misdeed]
    ) -> None:
        self.name, self._misdeeds = name, misdeeds
        self.said, self.repeated = dict[str, bytes](), set[str]()
        certs = folder / "fed" / name
        place = Place(name, folder / "data" / name, certs / "state", POLICY)
        self._site = Site(place, None, note=lambda text: None)
        self._mailbox = _Bent(place.state, name, self._site.knows)
        self._mailbox.misdeed = self._misdeed
        connection = Connection(server, certs / "ca.pem", certs / "client.key")
        self._engine = Engine(connection, place.state, self._take)

    def __enter__(self) -> Rogue:
        Thread(target=self._site.work, args=(self._mailbox,), daemon=True).start()
        self._engine.keep_up(note=lambda text: None)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def _misdeed(self, letter: str) -> Misdeed:
        """The one of a letter's round; letters are called as `r3-e4`."""
        number = letter.removeprefix("r").partition("-")[0]
        return self._misdeeds.get(int(number) if number.isdigit() else 0, Misdeed())

    def _take(self, data: bytes) -> bytes:
        call, _ = unpacked(Call, data)
        honest = self._mailbox.take(data)
        if unpacked(Answer, honest)[0].state != "done":
            return honest
        misdeed = self._misdeed(call.letter)
        if call.letter in self.said:
            self.repeated.add(call.letter)
            return misdeed.again(self, call, honest)
        self.said[call.letter] = honest
        return misdeed.say(self, call, honest)


class _Bent(Mailbox):
    """A mailbox out of which replies come otherwise than they went in."""

    misdeed: Callable[[str], Misdeed]

    def answer(self, letter: Received, work: Callable[[Send], None]) -> None:
        bend = self.misdeed(letter.name).bend

        def bent(send: Send) -> None:
            work(lambda frame: send(_other(frame, bend)))

        super().answer(letter, bent)


def _other(frame: Frame, bend: Bend) -> Frame:
    if frame.kind is not Kind.RECORD:
        return frame
    reply = unpack(frame.data)
    assert isinstance(reply, Reply), reply
    return Frame(frame.kind, frame.number, pack(bend(reply)))
