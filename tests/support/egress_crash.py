"""A site that is killed: `python -m tests.support.egress_crash FOLDER PLAN`, from one warm process.

PLAN is JSON: numbers are kills after so many seconds, texts as "fsync:7" at the seventh call of
that function of `os`, before it is made. What has left is told in FOLDER/left, a line each, after
`append` has returned. After each kill the record is verified, as it lies there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from atoll.egress.verify import verify
from tests.support.crash import arm
from tests.support.departures import Site, departure, open_record, site

__all__ = ["main"]

MESSAGES = 12
LARGE = 6_000


def main() -> None:
    folder, who = Path(sys.argv[1]), site("hospital-a")
    open_record(folder / "record", who).close()
    found = []
    for kill in json.loads(sys.argv[2]):
        code = _start(folder, who, kill)
        done = verify(folder / "record", who.certificate)
        found.append([code, done.messages, done.cuts, done.unfinished])
    print(json.dumps(found))


def _start(folder: Path, who: Site, kill: float | str | None) -> int:
    child = os.fork()
    if child == 0:
        if isinstance(kill, str):
            arm(*kill.split(":"))
        _send(folder, who)
        os._exit(0)
    if isinstance(kill, float):
        time.sleep(kill)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _send(folder: Path, who: Site) -> None:
    left = os.open(folder / "left", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open_record(folder / "record", who, large=LARGE) as egress:
        for number in range(MESSAGES):
            message = departure(number, f"run-{os.getpid()}")
            egress.append(message)
            assert isinstance(message.data, bytes)
            os.write(left, f"{message.run} ".encode() + message.data + b"\n")


if __name__ == "__main__":
    main()
