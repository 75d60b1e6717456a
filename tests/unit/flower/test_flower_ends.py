"""Relays end with the process that started them, whatever they wait for."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from atoll.flower.engine import command, environment
from atoll.flower.options import Relay


@pytest.mark.parametrize("module", ["atoll.flower.grid", "atoll.flower.node"])
def test_a_relay_that_waits_for_a_dead_engine_ends_with_its_parent(
    module: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        relay = Relay(address=f"127.0.0.1:{silent.getsockname()[1]}", secret=secret)
        process = subprocess.Popen(
            command(module, [relay.model_dump_json()]), env=environment(tmp_path),
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            # It asks the engine, which never answers.
            connection, _ = silent.accept()
            with connection:
                assert process.stdin is not None
                process.stdin.close()
                assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
