"""What a relay is told when it starts: one line of JSON on its command line, no secret in it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = ["MARK", "SMALL", "Relay", "shelf_in"]

SMALL = 2**16
"""Bytes of an object that is not put on the shelf: heads and lists of chunks."""
MARK = b"on disk"
"""What stands for the content of one that is; none is like it."""


class Relay(BaseModel):
    """Where a relay finds its end of Flower.

    address: host:port of the SuperLink or the SuperNode on this machine.
    secret: the file whose bytes show Flower that tasks are for us.
    ca: the certificate by which the address is trusted; None without TLS.
    shelf: the folder in which Flower keeps what is large.
    """

    model_config = ConfigDict(strict=False, extra="forbid", frozen=True)

    address: str
    secret: Path
    ca: Path | None = None
    shelf: Path | None = None

    @property
    def root(self) -> bytes | None:
        """The certificate's bytes."""
        return None if self.ca is None else self.ca.read_bytes()


def shelf_in(home: Path) -> Path:
    """Where Flower keeps what is large, in the folder of its own."""
    return home / "objects"
