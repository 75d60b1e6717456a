"""Letters on their way in to a site: their pieces on its disk, which a server may not fill."""

from __future__ import annotations

import shutil
from pathlib import Path

from atoll.disk.files import make_folder
from atoll.errors import PayloadError
from atoll.frames import LIMIT
from atoll.runtimes.letters import OPENING, PIECE, Call, pieces_of

__all__ = ["Pieces"]

OPENINGS = 2**24
"""Bytes of an opening at most; of other letters, `LIMIT`."""
SPARE = 2**28
"""Bytes of the disk that stay free."""
FEDERATIONS = 100
"""Federations whose folders one site keeps."""
TOGETHER = 2
"""Letters that come in at once: one, and the one that takes its place."""
MISSED = 64
"""Missing pieces that are told at once."""


class Pieces:
    """Incomplete letters, in a folder for each federation below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._coming: list[Path] = []
        make_folder(folder)
        # What an earlier process was sent is sent again.
        for old in folder.glob("*/letters"):
            shutil.rmtree(old, ignore_errors=True)

    def missing(self, call: Call, body: memoryview) -> tuple[int, ...]:
        """Keep the piece that came with a call; which ones are still missing.

        Raises:
            PayloadError: a letter that is too large for here, or a piece that is none of it.
        """
        place, number = self._place(call), pieces_of(call.size)
        if call.piece is not None:
            whole = PIECE if call.piece + 1 < number else call.size - (number - 1) * PIECE
            if call.piece >= number or len(body) != whole:
                raise PayloadError(f"piece {call.piece} of {number} came with {len(body)} bytes")
            if place not in self._coming:
                self._check(call)
                self._begin(place)
            _write(place / str(call.piece), body)
        there = {path.name for path in place.iterdir()} if place.is_dir() else set()
        missing: list[int] = []
        for piece in range(number):
            if str(piece) not in there:
                missing.append(piece)
                if len(missing) == MISSED:
                    break
        return tuple(missing)

    def whole(self, call: Call) -> bytes:
        """The bytes of a letter of which nothing is missing; they are kept no longer."""
        place = self._place(call)
        data = b"".join((place / str(n)).read_bytes() for n in range(pieces_of(call.size)))
        self._drop(place)
        return data

    def _check(self, call: Call) -> None:
        """Refuse a letter for which there is no room."""
        most = OPENINGS if call.letter.startswith(OPENING) else LIMIT
        if call.size > most:
            raise PayloadError(
                f"a letter of {call.size:,} bytes was announced; at most {most:,} are read"
            )
        free = shutil.disk_usage(self._folder).free
        if call.size > free - SPARE:
            raise PayloadError(
                f"a letter of {call.size:,} bytes was announced, and this site's disk has "
                f"{free:,} left"
            )
        known = [path for path in self._folder.iterdir() if len(path.name) == len(call.run)]
        if len(known) >= FEDERATIONS and self._folder / call.run not in known:
            raise PayloadError(
                f"this site keeps the folders of {len(known)} federations in its state; remove "
                "those that are over"
            )

    def _begin(self, place: Path) -> None:
        for old in self._coming[: -TOGETHER + 1]:
            self._drop(old)
        self._coming.append(place)

    def _drop(self, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        self._coming = [one for one in self._coming if one != place]

    def _place(self, call: Call) -> Path:
        return self._folder / call.run / "letters" / f"{call.letter}-{call.digest[:16]}"


def _write(path: Path, body: memoryview) -> None:
    """Not synced: what a power cut leaves of a letter has another digest, and is sent again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(body)
    partial.replace(path)
