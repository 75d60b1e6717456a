"""Rounds over the network, ours beside plain Flower's: `python -m benchmarks.deployment`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from atoll.flower.engine import environment, free_port
from benchmarks.common import SCRATCH, markdown, write_result
from benchmarks.deployment.plain import write_app
from benchmarks.deployment.watch import Watch, loopback, watched

CASES = [(1, 2), (1, 4), (1, 8), (10, 2), (10, 4), (10, 8), (100, 2)]
MILLION = 10**6
LIMIT = 1200.0


def main() -> None:
    """Measure the cases, ours and plain in turn, and write the result."""
    parser = argparse.ArgumentParser("benchmarks.deployment")
    parser.add_argument("--cases", default=",".join(f"{v}x{n}" for v, n in CASES),
                        help="millions of values x clients")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--arms", default="ours,plain", help="ours, senders, plain")
    parser.add_argument("--name", default="deployment", help="of the file of results")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for case in options.cases.split(","):
        values, clients = map(int, case.split("x"))
        for arm in options.arms.split(","):
            rows.append(_measured(arm, values, clients, options.rounds))
            print(json.dumps(rows[-1]), flush=True)
    write_result(Path(__file__).parent, options.name, {"rounds": options.rounds, "rows": rows})
    print(markdown(list(rows[0]), [list(row.values()) for row in rows]))


def _measured(arm: str, values: int, clients: int, rounds: int) -> dict[str, Any]:
    # A folder of its own: what ended with the case before may still be writing into that one's.
    SCRATCH.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="deployment-", dir=SCRATCH))
    port, names = free_port(), [f"site-{i}" for i in range(clients)]
    subprocess.run(
        [sys.executable, "-m", "atoll", "certs", "init", str(folder / "fed"), "--server",
         "localhost", "--clients", ",".join(names)], check=True, capture_output=True,
    )  # fmt: skip
    start = {"ours": _ours, "senders": _senders, "plain": _plain}[arm]
    rounds_file = folder / "rounds.jsonl"
    processes = start(folder, port, names, values * MILLION, rounds)
    groups = {"server": _serves, "SuperLink": _links}
    try:
        with watched(groups, os.getpid()) as watch:
            ends, moved, spent = _watch(rounds_file, rounds, processes, watch)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    seconds = [b - a for a, b in itertools.pairwise(ends)]
    payload, counted = 4 * values * MILLION / 2**20, len(ends) - 1
    growth, peaks = watch.growth, watch.peaks
    return {
        "arm": arm, "values (M)": values, "clients": clients, "load": round(os.getloadavg()[0], 1),
        "s a round": round(statistics.median(seconds), 2),
        "CPU s a round": round(spent / counted, 2),
        "loopback MB a round": round(moved / counted / 1e6, 1),
        "x payload": round(moved / counted / 2**20 / (payload * clients), 2),
        "server + SuperLink MB": round(peaks["server"] + peaks["SuperLink"]),
        "of it the SuperLink": round(peaks["SuperLink"]),
        "growth MB": None if growth is None else round(growth),
        "growth in payloads": None if growth is None else round(growth / payload, 2),
    }  # fmt: skip


def _watch(
    path: Path, rounds: int, processes: Sequence[subprocess.Popen[bytes]], watch: Watch
) -> tuple[list[float], int, float]:
    """The moments at which rounds ended; bytes and processor time from the first of them on."""
    begun, ready, end = None, False, time.monotonic() + LIMIT
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        ended = [one["time"] for one in found if one["round"] not in ("ready", "end", 0)]
        if found and found[0]["round"] == "ready" and not ready:
            ready = True
            time.sleep(0.5)
            watch.mark()
        if ended and begun is None:
            begun = loopback(), watch.seconds()
        if len(ended) >= rounds and begun is not None:
            return ended, loopback() - begun[0], watch.seconds() - begun[1]
        dead = [process for process in processes if process.poll() not in (None, 0)]
        if dead:
            raise SystemExit(f"a process ended with {dead[0].returncode}; see {path.parent}")
        time.sleep(0.05)
    raise SystemExit(f"no {rounds} rounds in {LIMIT:.0f} s; see {path.parent}")


def _serves(words: Sequence[str]) -> bool:
    line = " ".join(words)
    return any(part in line for part in ("deployment.ours_server", "atoll.flower.grid",
                                         "flwr-serverapp"))  # fmt: skip


def _links(words: Sequence[str]) -> bool:
    line = " ".join(words)
    return "atoll.flower.link" in line or "flower-superlink" in line


def _ours(
    folder: Path, port: int, names: Sequence[str], values: int, rounds: int
) -> list[subprocess.Popen[bytes]]:
    sites = ["benchmarks.deployment.ours_sites", str(port), str(folder / "fed"), *names]
    return [_server(folder, port, values, rounds),
            _started(folder, "sites", [sys.executable, "-m", *sites])]  # fmt: skip


def _senders(
    folder: Path, port: int, names: Sequence[str], values: int, rounds: int
) -> list[subprocess.Popen[bytes]]:
    sites = ["benchmarks.deployment.senders", str(port), str(folder / "fed"), str(values), *names]
    return [_server(folder, port, values, rounds),
            _started(folder, "sites", [sys.executable, "-W", "ignore", "-m", *sites])]  # fmt: skip


def _server(folder: Path, port: int, values: int, rounds: int) -> subprocess.Popen[bytes]:
    return _started(folder, "server", [
        sys.executable, "-m", "benchmarks.deployment.ours_server", str(values), str(rounds),
        str(port), str(folder / "fed" / "server"), str(folder / "post"),
    ], out=folder / "rounds.jsonl")  # fmt: skip


def _plain(
    folder: Path, port: int, names: Sequence[str], values: int, rounds: int
) -> list[subprocess.Popen[bytes]]:
    certs, home = folder / "fed", folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "localhost:{port}"\n'
        f'root-certificates = "{certs / "server" / "ca.pem"}"\n'
    )
    app = write_app(folder, values, rounds, len(names))
    tls = ["--ssl-ca-certfile", str(certs / "server" / "ca.pem"), "--ssl-certfile",
           str(certs / "server" / "server.pem"), "--ssl-keyfile",
           str(certs / "server" / "server.key")]  # fmt: skip
    link = _started(folder, "link", ["flower-superlink", "--host", "127.0.0.1", "--port", str(port),
                    "--disable-runtime-dependency-installation", *tls])  # fmt: skip
    time.sleep(4)
    found = [link]
    for name in names:
        found.append(_started(folder, name, [
            "flower-supernode", "--superlink", f"localhost:{port}", "--root-certificates",
            str(certs / name / "ca.pem"), "--port", str(free_port()),
        ]))  # fmt: skip
    time.sleep(3)
    subprocess.run(["flwr", "run", str(app), "here"], check=True, capture_output=True,
                   env=_environment(home))  # fmt: skip
    return found


def _environment(home: Path) -> dict[str, str]:
    """Flower's, and nothing that our own processes are told of memory."""
    told = environment(home).items()
    return {name: value for name, value in told if not name.startswith("MALLOC_")}


def _started(
    folder: Path, name: str, command: Sequence[str], out: Path | None = None
) -> subprocess.Popen[bytes]:
    home = folder / "home"
    env = {**_environment(home), "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("wb") as log, (out or Path(os.devnull)).open("wb") as stdout:
        return subprocess.Popen(command, env=env, stdout=stdout if out else log, stderr=log,
                                process_group=0)  # fmt: skip


if __name__ == "__main__":
    main()
