"""A process that stands in for a server or a site: it holds its folder, and tells how it stands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.pages import ROOT

__all__ = ["CLIENTS", "FACTS", "LEFT", "begun", "working"]

CLIENTS = [
    {"name": "hospital-a", "connected": True, "state": "working", "heard": "2026-11-29T06:39:28Z",
     "error": None, "bytes_up": 301_300, "bytes_down": 317_700},
    {"name": "hospital-b", "connected": False, "state": "absent", "heard": None,
     "error": {"time": "2026-11-29T06:39:20Z", "kind": "policy", "message": "rule [hours]: no"},
     "bytes_up": 0, "bytes_down": 0},
]  # fmt: skip
ASKED = {"what": "round 2: train", "since": "2026-11-29T06:39:27Z", "clients": 2, "answered": 1,
         "failed": 0, "quorum": 2}  # fmt: skip
FACTS = {
    "run": "d18ace", "listen": "127.0.0.1:9092", "tls": True, "round": 1, "rounds": 3,
    "doing": None, "asked": ASKED, "clients": CLIENTS, "admitted": 2, "connected": 1,
    "bytes_up": 301_300, "bytes_down": 317_700,
}  # fmt: skip
LEFT = {
    "site": "hospital-a", "server": "fl.example.org:9092", "connected": "2026-11-29T06:39:20Z",
    "heard": "2026-11-29T06:39:28Z", "run": "d18ace", "round": None, "task": None,
    "answered": {"time": "2026-11-29T06:39:28Z", "letter": "r2-e4", "round": 2, "task": "train"},
    "refused": {"time": "2026-11-29T06:39:28Z", "rule": "hours", "why": "it is 12:00"},
    "paused": False, "policy": ["metrics: true  # Losses may leave."],
    "left": {"messages": 3, "bytes": 1_200_000, "last": [
        {"time": "2026-11-29T06:39:28Z", "run": "d18ace", "round": 2, "task": "train",
         "bytes": 400_000, "tensors": 8, "norm": 0.25, "epsilon": None, "text": None}]},
}  # fmt: skip

CODE = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from atoll.cli.process import stoppable
from atoll.disk.lock import alone
from atoll.status import SERVER, SITE, Board
from tests.support.working import FACTS, LEFT
folder, kind = Path(sys.argv[2]), {"server": SERVER, "site": SITE}[sys.argv[3]]
folder.mkdir(parents=True, exist_ok=True)
try:
    with stoppable(), alone(folder), Board(folder, kind) as board:
        board.show(lambda: FACTS if kind is SERVER else LEFT)
        for number in range(3):
            board.note(f"line {number}")
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.1)
except KeyboardInterrupt:
    sys.exit(130)
"""


def begun(folder: Path, kind: str = "server") -> subprocess.Popen[bytes]:
    """Such a process, once its status is whole; it ends when stopped, or when this one ends."""
    process = subprocess.Popen([sys.executable, "-c", CODE, str(ROOT), str(folder), kind])
    file = folder / "status.json"
    while not file.is_file() or '"bytes' not in file.read_text(encoding="utf-8"):
        assert process.poll() is None
        time.sleep(0.02)
    return process


@contextmanager
def working(folder: Path, kind: str = "server") -> Iterator[subprocess.Popen[bytes]]:
    """Such a process, which is ended afterwards."""
    process = begun(folder, kind)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
