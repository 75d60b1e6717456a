"""Runs that are killed: `python crash.py EXPERIMENT OUTPUT PLAN`, from one warm process.

PLAN is JSON: numbers are kills after so many seconds, texts as "fsync:7" at the seventh call of
that function of `os`, before it is made; "replace:3" at the third. After all kills the run is
started once more, to its end. Prints what became of each start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["arm", "main"]


def main() -> None:
    experiment, output, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    import torch

    import atoll.runs.run
    from atoll.cli.app import guarded

    torch.set_num_threads(1)
    assert atoll.runs.run.run_experiment
    arguments = ["run", experiment, f"output_dir={output}", "--format", "json"]
    found = [_start(lambda: guarded(arguments), kill) for kill in [*plan, None]]
    print(json.dumps(found))


def _start(run: Callable[[], int], kill: float | str | None) -> int:
    """The exit code of one start; −9 where it was killed."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        if isinstance(kill, str):
            arm(*kill.split(":"))
        os._exit(run())
    if isinstance(kill, float):
        time.sleep(kill)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def arm(function: str, number: str) -> None:
    """Die at the so-manieth call of a function of `os`."""
    inner, left = getattr(os, function), [int(number)]

    def counted(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **named)

    setattr(os, function, counted)


if __name__ == "__main__":
    main()
