"""How much has left, by the lines of the record; `atoll egress verify` is what checks them."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atoll.egress.places import file_at

__all__ = ["Tally"]

LAST = 12
"""Messages that are told one by one."""
LONG = 200
"""Characters of a message's text that are told."""


class Tally:
    """Counts the messages of a record, from wherever it stopped before."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file, self._offset = folder, 1, 0
        self._messages, self._bytes = 0, 0
        self._last: deque[dict[str, Any]] = deque(maxlen=LAST)

    def now(self) -> dict[str, Any]:
        """Messages and bytes in all, and the last ones."""
        for line in self._new():
            if line["kind"] == "sent":
                self._messages += 1
                self._bytes += line["bytes"]
                self._last.append(_told(line))
        return {"messages": self._messages, "bytes": self._bytes, "last": list(self._last)}

    def _new(self) -> Iterator[dict[str, Any]]:
        """Whole lines that were not read yet."""
        while (path := file_at(self._folder, self._file)).is_file():
            with path.open("rb") as opened:
                opened.seek(self._offset)
                for line in opened:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    yield json.loads(line)
            if not file_at(self._folder, self._file + 1).is_file():
                return
            self._file, self._offset = self._file + 1, 0


def _told(line: dict[str, Any]) -> dict[str, Any]:
    # A single number is a count or a metric, which would outweigh an update.
    norms = [one["l2"] for one in line["tensors"] if math.prod(one["shape"]) > 1]
    whole = None if None in norms or not norms else sum(one**2 for one in norms) ** 0.5
    kept = {name: line[name] for name in ("time", "run", "round", "task", "bytes")}
    text = line["text"]
    return {**kept, "tensors": len(line["tensors"]), "norm": whole,
            "epsilon": line["privacy"]["epsilon"],
            "text": text and text[:LONG]}  # fmt: skip
