"""Threads, the environment, and Ctrl-C while torch loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from atoll.cli.process import threads


@pytest.mark.parametrize(
    ("cores", "load", "expected"),
    [(1, 0.0, 1), (2, 0.0, 2), (2, 1.0, 2), (2, 1.1, 1), (16, 0.5, 2), (16, 8.1, 1), (3, 1.5, 2)],
)
def test_one_thread_on_a_busy_machine_and_two_on_an_idle_one(
    cores: int, load: float, expected: int
) -> None:
    assert threads(cores, load) == expected


def _settled(**given: str) -> dict[str, str]:
    code = "from atoll.cli.process import settle; settle(); import json, os; " \
           "print(json.dumps(dict(os.environ)))"  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "HF_", "TOKEN"))}
    found = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **given}, capture_output=True, check=True
    )
    settled: dict[str, str] = json.loads(found.stdout)
    return settled


def test_the_environment_is_set_before_torch_reads_it() -> None:
    found = _settled()
    assert found["OMP_NUM_THREADS"] in ("1", "2")
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["TOKENIZERS_PARALLELISM"] == "false"


def test_what_the_user_set_stands_except_telemetry() -> None:
    found = _settled(OMP_NUM_THREADS="7", OMP_WAIT_POLICY="ACTIVE", HF_HUB_DISABLE_TELEMETRY="0")
    assert found["OMP_NUM_THREADS"] == "7"
    assert found["OMP_WAIT_POLICY"] == "ACTIVE"
    assert found["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_ctrl_c_while_torch_loads_ends_the_process_without_a_core_dump() -> None:
    code = (
        "import os, signal, sys, threading\n"
        "from atoll.cli.process import load_torch\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "load_torch()\n"
        "print('loaded')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (130, "")
    assert found.stderr == "Error: interrupted\n"


def test_ctrl_c_before_the_command_is_read_has_no_traceback() -> None:
    code = (
        "import os, signal, sys, time\n"
        "from atoll.cli.main import main\n"
        "class Late:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'atoll.cli.app':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            time.sleep(5)\n"
        "sys.meta_path.insert(0, Late())\n"
        "main()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "Error: interrupted\n")


def test_the_front_door_imports_nothing_that_takes_time() -> None:
    code = "import sys, json, atoll.cli.main; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {"click", "typer", "rich", "atoll.cli.app"} & set(json.loads(found.stdout))
