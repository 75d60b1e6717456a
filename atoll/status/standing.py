"""How a process of a federation stands, as its status file and the system say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from atoll.disk.lock import held
from atoll.errors import RunError

__all__ = ["SERVER", "SITE", "Kind", "Standing", "find", "living", "look"]

CLOCK = 2.0
"""Seconds by which two looks at the same process's start may differ."""


@dataclass(frozen=True)
class Kind:
    """A kind of process, and what it writes."""

    name: str
    log: str
    file: str = "status.json"


SERVER, SITE = Kind("server", "server.log"), Kind("site", "client.log")


@dataclass(frozen=True)
class Standing:
    """path: as it was named.   folder: of its status and log.   alive: its process is there."""

    path: Path
    folder: Path
    status: dict[str, Any]

    @property
    def pid(self) -> int:
        """The process that wrote the file."""
        return int(self.status["pid"])

    @property
    def log(self) -> Path:
        """Its log."""
        kind = SERVER if self.status["kind"] == SERVER.name else SITE
        return self.folder / kind.log

    @property
    def alive(self) -> bool:
        """Whether that very process is there, and holds the folder."""
        try:
            created = psutil.Process(self.pid).create_time()
        except psutil.Error:
            return False
        return abs(created - float(self.status["created"])) < CLOCK and held(self.folder)


def find(path: Path) -> Path:
    """The folder with the status of a run, of a site's state, or beside a site's certificate.

    Raises:
        RunError: when there is none.
    """
    for folder in (path / "federation", path, path / "state"):
        if (folder / SERVER.file).is_file():
            return folder
    raise RunError(
        f"{path} holds no {SERVER.file}; name a run directory of `atoll server`, or the state "
        "folder of `atoll client`"
    )


def look(path: Path) -> Standing:
    """How the process stands that writes into a run directory or a state folder.

    Raises:
        RunError: when there is none, or its file was damaged.
    """
    folder = find(path)
    file = folder / SERVER.file
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Standing(path, folder, {**found, "pid": int(found["pid"]),
                                       "created": float(found["created"]),
                                       "kind": str(found["kind"])})  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({type(error).__name__}); it is written anew when "
                       "its process is started again") from None  # fmt: skip


def living(folder: Path) -> list[Standing]:
    """The servers that run now, of runs in `folder`/runs."""
    files = sorted(folder.glob(f"runs/*/federation/{SERVER.file}"))
    found = [look(file.parent.parent) for file in files]
    return [one for one in found if one.alive]
