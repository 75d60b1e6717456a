"""Questions on their way out: what many clients are asked lies on disk once, and not in memory."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.core import Task
from atoll.core.wire import parts_of
from atoll.disk.files import explained, make_folder
from atoll.flower.parcels import Stored
from atoll.frames import HEAD, Frame, Kind, head_of
from atoll.runtimes.asking import Asking, Numbered
from atoll.runtimes.letters import Letter

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Outgoing", "attempts"]

TRIES = 8
"""Letters to one client about one question whose answers count also after a restart."""


def attempts(letter: Callable[[str, int], Letter], client: str) -> dict[str, int]:
    """The letters that a client may have been sent, by their digests, and which of them each is."""
    return {letter(client, attempt).digest: attempt for attempt in range(TRIES)}


class Outgoing:
    """The letters that ask `tasks`, by one name; their requests are files of `folder`.

    What earlier questions left there is taken away.
    """

    def __init__(self, tasks: Sequence[Task], name: str, folder: Path) -> None:
        self._asking, self._name, self._folder = Asking(tasks, number=0), name, folder
        # Nothing else ever has a name of these: a relay knows the bytes of a file by it.
        self._own = f"{name}-{uuid.uuid4().hex}"
        self._kept: dict[tuple[int, ...], tuple[Stored, _Hash]] = {}
        shutil.rmtree(folder, ignore_errors=True)

    def letter(self, client: str, attempt: int) -> Letter:
        """What one client is asked.

        Raises:
            PayloadError: a broadcast that cannot travel.
        """
        requests, asks = list[Numbered](), list[Frame]()
        for part in self._asking.parts([client], set()):
            (asks if isinstance(part, Frame) else requests).append(part)  # type: ignore[arg-type]
        stored, digest = self._written(requests)
        # The last frame is the ask: by its number, a client knows that it is asked anew.
        ask = replace(asks[0], number=attempt)
        rest = head_of(ask) + ask.data
        digest = digest.copy()
        digest.update(rest)
        return Letter(self._name, stored, rest, stored.length + len(rest), digest.hexdigest())

    def _written(self, requests: Sequence[Numbered]) -> tuple[Stored, _Hash]:
        """The requests' frames in a file, and their digest so far."""
        numbers = tuple(one.number for one in requests)
        if numbers not in self._kept:
            make_folder(self._folder)
            path = self._folder / "-".join((self._own, *map(str, numbers)))
            digest, size = hashlib.sha256(), 0
            with explained(path), path.open("wb") as file:
                for number, request in requests:
                    parts = parts_of(request)
                    head = HEAD.pack(Kind.RECORD.value, number, sum(map(len, parts)))
                    for part in (head, *parts):
                        digest.update(part)
                        size += file.write(part)
            self._kept[numbers] = Stored(path=path, start=0, length=size), digest
        return self._kept[numbers]
