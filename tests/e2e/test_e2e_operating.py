"""A federation is looked after from the command line while it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from atoll.status import look
from tests.e2e.test_e2e_federation import write_experiment
from tests.support.models import Zoo
from tests.support.sites import ATOLL, Started, federation, waited

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes")
RUN, STATE = "runs/there", "fed/ada/state"


def _typed(folder: Path, *words: str) -> str:
    done = subprocess.run([ATOLL, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _page(started: Started) -> str:
    waited(lambda: "?token=" in started.said or started.process.poll() is not None)
    found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", started.said)
    assert found, started.said
    return found[0]


def test_a_federation_is_watched_paused_and_stopped(zoo: Zoo, tmp_path: Path) -> None:
    def client() -> dict[str, Any]:
        (found,) = look(tmp_path / RUN).status["clients"]
        return dict(found)

    write_experiment(tmp_path, zoo, 50, min_clients=1)
    with federation(tmp_path, ["ada"]) as people:
        server = people.coordinate("experiment.yaml", "--ui")
        site = people.join("ada", "--ui")
        pages = [_page(one) for one in (server, site)]
        for page in pages:
            with urlopen(page) as answer:
                assert b"<title>" in answer.read()
        waited(lambda: "round 0/50" in server.said)
        waited(lambda: min(client()["bytes_up"], client()["bytes_down"]) > 1000)
        (told,) = json.loads(_typed(tmp_path, "status", "--format", "json"))
        assert (told["path"], told["alive"], told["state"]) == (RUN, True, "running")
        (found,) = told["clients"]
        assert (found["name"], found["connected"], found["error"]) == ("ada", True, None)

        _typed(tmp_path, "client", "pause", "--certs", "fed/ada")
        waited(lambda: client()["error"] is not None)
        assert client()["error"]["message"].startswith("policy rule 'paused'")
        asked = ("client", "status", "--state", STATE)
        waited(lambda: "last refused" in _typed(tmp_path, *asked))
        said = _typed(tmp_path, *asked)
        assert re.search(r"^\d+ messages with \S+ .?B left", said, re.MULTILINE)

        children = [psutil.Process(one.process.pid).children(recursive=True)
                    for one in (server, site)]  # fmt: skip
        _typed(tmp_path, "stop", RUN)
        _typed(tmp_path, "stop", STATE)
        assert (server.process.wait(60), site.process.wait(60)) == (130, 130)
        waited(lambda: not any(one.is_running() for two in children for one in two))
    assert "server stopped" in _typed(tmp_path, "status", RUN)
    assert "round 0/50 is done" in _typed(tmp_path, "logs", RUN, "-n", "1000")
    assert "connecting to localhost" in _typed(tmp_path, "logs", STATE, "-n", "1000")
    assert "connecting again" not in site.said
    for folder in (RUN, STATE):
        _no_secret(tmp_path / folder, pages)


def _no_secret(folder: Path, pages: list[str]) -> None:
    """Tokens of pages, and keys, are in no file that is written to be read."""
    for path in folder.rglob("*"):
        if path.is_file() and "engine" not in path.parts:
            data = path.read_bytes()
            assert not any(os.fsencode(page.partition("=")[2]) in data for page in pages), path
            assert b"PRIVATE KEY" not in data, path
