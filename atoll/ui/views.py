"""What a page shows: the status file of this process, and the lines of its rounds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from atoll.policy import pause, resume
from atoll.status import SERVER

__all__ = ["View", "run_view", "site_view"]

ROUNDS = 500
"""Rounds that curves show at most: the last ones."""
KEPT = ("round", "loss", "bytes_up", "bytes_down", "clients", "epsilon", "seconds")
OTHERS = {*KEPT, "own", "exchanges", "failures"}

Json = dict[str, Any]


@dataclass(frozen=True)
class View:
    """kind: server or site.   look: what is to be seen now.   actions: what its buttons do."""

    kind: str
    name: str
    look: Callable[[], Json]
    actions: Mapping[str, Callable[[], None]] = field(default_factory=dict)


def run_view(run: Path) -> View:
    """The page of the server that runs in this process."""
    rounds = _Rounds(run / "rounds.jsonl")
    return View("server", run.name, lambda: {**_status(run / "federation"), **rounds.look()})


def site_view(state: Path) -> View:
    """The page of the client that runs in this process, with its stop switch."""
    actions = {"pause": partial(pause, state), "resume": partial(resume, state)}
    return View("site", state.resolve().parent.name, partial(_status, state), actions)


def _status(folder: Path) -> Json:
    """The status that this very process wrote; none before it has."""
    try:
        found = json.loads((folder / SERVER.file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"status": None}
    return {"status": found if found.get("pid") == os.getpid() else None}


class _Rounds:
    """The lines of rounds.jsonl, read again where the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._found: Json = {"metric": None, "rounds": []}

    def look(self) -> Json:
        """The last rounds, and what their metric is called."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return {"metric": None, "rounds": []}
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp != self._stamp:
            self._found, self._stamp = self._read(), stamp
        return self._found

    def _read(self) -> Json:
        rows: list[Json] = []
        for line in self._path.read_text(encoding="utf-8").split("\n"):
            try:
                rows.append(json.loads(line))
            except ValueError:  # Its end is being written.
                break
        metric = next((name for row in rows[:1] for name in row if name not in OTHERS), None)
        found = [
            {**{name: row.get(name) for name in KEPT}, "metric": row.get(metric or "")}
            for row in rows[-ROUNDS:]
        ]
        total = {name: sum(row.get(name, 0) for row in rows) for name in ("bytes_up", "bytes_down")}
        return {"metric": metric, "rounds": found, "total": total}
