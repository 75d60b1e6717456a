"""Writing a record: a line to the disk, then the head that counts it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from atoll import __version__
from atoll.disk.files import append_bytes, explained, sweep, sync_folder, write_bytes
from atoll.egress.lines import Begin, Cut, Head, Line, Link
from atoll.egress.places import HEAD, file_at
from atoll.egress.seal import certificate_of, fingerprint, sealed, sha256
from atoll.egress.standing import Standing, stand
from atoll.errors import EgressError

__all__ = ["Chain"]


class Chain:
    """The end of a record that this process holds alone, and goes on from.

    large: bytes after which a new file is begun.

    Raises:
        EgressError: see `stand`.
        RunError: when it cannot be written.
    """

    def __init__(
        self, folder: Path, site: str, key: EllipticCurvePrivateKey, pem: bytes, *, large: int
    ) -> None:
        self._folder, self._site, self._key, self._large = folder, site, key, large
        self._certificate = certificate_of(pem)
        sweep(folder)
        self._here = here = stand(folder, site, self._certificate)
        self._go_on(here)

    def next(self) -> dict[str, Any]:
        """What the next line says of its place: its number, the time, the line before."""
        if self._here.size >= self._large:
            self._turn_over()
        if self._here.size == 0:
            self._begin()
        return self._place()

    def write(self, line: Line) -> None:
        """A line to the disk, then the head.

        Raises:
            EgressError: when someone else has changed the file meanwhile.
            RunError: when the line or the head could not be written.
        """
        self._catch_up()
        raw = sealed(line.model_dump(mode="json"), self._key)
        path, here = self._path, self._here
        with explained(path):
            if (path.stat().st_size if path.exists() else 0) != here.size:
                raise EgressError(f"{path} was changed by someone else while it was open")
        append_bytes(path, raw)
        link = Link(line.number, sha256(raw))
        self._here = replace(here, size=here.size + len(raw), link=link)
        self._tell()

    def _go_on(self, here: Standing) -> None:
        """Clear what a killed process left, and write the first line of a file that is begun."""
        if here.known is None:
            self._tell()
        self._catch_up()
        if here.cut:
            with explained(self._path):
                os.truncate(self._path, here.size)
        if here.certificate not in ("", fingerprint(self._certificate)):
            self._turn_over()
        if self._here.size == 0:
            self._begin()
        if here.cut:
            self.write(Cut(**self._place(), bytes=len(here.cut), sha256=sha256(here.cut)))

    def _begin(self) -> None:
        """The first line of a file."""
        self.write(
            Begin(
                **self._place(),
                file=self._here.file,
                site=self._site,
                atoll=__version__,
                certificate=self._certificate.public_bytes(Encoding.PEM).decode(),
                certificate_sha256=fingerprint(self._certificate),
            )
        )

    def _turn_over(self) -> None:
        """Go on in the next file."""
        self._catch_up()
        self._here = replace(self._here, file=self._here.file + 1, size=0)

    def _place(self) -> dict[str, Any]:
        """What every line says of its place."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        link = self._here.link
        return {"number": link.number + 1, "time": time, "previous": link.hash}

    def _catch_up(self) -> None:
        """The head is never more than one line behind."""
        if self._here.known != self._here.link.number:
            self._tell()

    def _tell(self) -> None:
        """Write the head: what it counts cannot be taken away unseen."""
        here = self._here
        head = Head(
            site=self._site,
            file=here.file,
            size=here.size,
            number=here.link.number,
            hash=here.link.hash,
        )
        write_bytes(self._folder / HEAD, sealed(head.model_dump(mode="json"), self._key))
        sync_folder(self._folder)
        self._here = replace(here, known=here.link.number)

    @property
    def _path(self) -> Path:
        return file_at(self._folder, self._here.file)
