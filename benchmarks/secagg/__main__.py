"""What a secure sum costs, beside Flower's SecAgg+ in the same process and one AES pass a mask.

    python -m benchmarks.secagg --clients 50 --values 1000000     one size, three rates of dropouts
    python -m benchmarks.secagg --clients 100 --rates 0.1         one rate
    python -m benchmarks.secagg --targets                         three sums, without Flower
    python -m benchmarks.secagg --table                           what is in results/, as a table

CPU seconds (`process_time`). A client's are all its steps together, and the median over clients.
Flower is asked twice: where every client masks with every other, and at our degree and threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.secagg import Channel, Configuration, Identity, Moment, Terms, agree, roster_verifier
from atoll.secagg.masks import CHUNK, stream
from benchmarks.common import markdown, write_result
from benchmarks.secagg.ours import ours
from benchmarks.secagg.peer import Measured, flower

FOLDER = Path(__file__).parent
RATES = (0.0, 0.1, 0.3)
PEERS = ("all", "same")
BOUND = 4.0


def main() -> None:
    options = _arguments()
    if options.table:
        print(table(FOLDER / "results"))
        return
    if options.targets:
        content = {"targets": [target(*case) for case in TARGETS]}
        path = write_result(FOLDER, "secagg-targets", content)
    else:
        rows = compare(options)
        rates = "".join(f"-{rate:g}" for rate in options.rates if options.rates != list(RATES))
        name = f"secagg-{options.clients}x{options.values}-{'-'.join(options.beside)}{rates}"
        path = write_result(FOLDER, name, {"rows": rows})
    print(f"{path.read_text()}\nwritten to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--values", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--beside", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--targets", action="store_true")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each rate of dropping out."""
    clients, values = int(options.clients), int(options.values)
    vector, drops = _vector(values), [round(rate * clients) for rate in options.rates]
    agreed = {
        drop: _agreed(clients, values, Terms(0.1, max(0.1, rate)))
        for drop, rate in zip(drops, options.rates, strict=True)
    }
    own = {drop: _ours(agreed[drop], vector, drop, options.repeats) for drop in drops}
    peers: dict[int, dict[str, Measured]] = {drop: {} for drop in drops}
    for which in options.beside:
        shapes = {
            drop: (made.neighbours, made.threshold) if which == "same"
            else (clients - 1, clients // 2 + 1)
            for drop, made in agreed.items()
        }  # fmt: skip
        for shape in sorted(set(shapes.values())):
            of = [drop for drop in drops if shapes[drop] == shape]
            # Flower counts the client itself among its shares.
            found = flower(clients, shape[0] + 1, shape[1], vector, of)
            for drop, measured in zip(of, found, strict=True):
                peers[drop][which] = measured
    once = _one_pass(values)
    return [_row(agreed[drop], drop, own[drop], peers[drop], once) for drop in drops]


def _agreed(clients: int, values: int, terms: Terms) -> Configuration:
    names = [f"client-{number:04}" for number in range(clients)]
    channels = [Channel.fitted("update", values, BOUND, clients)]
    return agree(Moment("benchmark", 1, 1), names, channels, terms)


def _ours(
    configuration: Configuration, vector: NDArray[np.float32], dropped: int, repeats: int
) -> Measured:
    found = [ours(configuration, vector, dropped) for _ in range(repeats)]
    server = statistics.median(each.server for each in found)
    clients = [seconds for each in found for seconds in each.clients]
    return Measured(clients, server, found[0].upload, max(each.error for each in found))


def _row(
    configuration: Configuration,
    dropped: int,
    own: Measured,
    peers: Mapping[str, Measured],
    once: float,
) -> dict[str, Any]:
    clients, near = len(configuration.cohort), configuration.neighbours
    alive = clients - dropped
    client, server = statistics.median(own.clients), own.server
    limits = {
        "client": (near + 1) * once,
        "server": (alive + dropped * near * alive / clients) * once,
    }
    row: dict[str, Any] = {
        "clients": clients, "values": configuration.size, "dropped": dropped,
        "neighbours": near, "threshold": configuration.threshold,
        "client_ms": client * 1e3, "server_ms": server * 1e3,
        "upload_ratio": own.upload / (4 * configuration.size), "error": own.error,
        "signatures_checked": clients + configuration.signers - 2,
        "signatures_ms": (clients + configuration.signers - 2) * _one_check() * 1e3,
        "limit_client_ms": limits["client"] * 1e3, "limit_server_ms": limits["server"] * 1e3,
    }  # fmt: skip
    for name, peer in peers.items():
        spent = statistics.median(peer.clients)
        row |= {
            f"flower_{name}_client_ms": spent * 1e3, f"flower_{name}_server_ms": peer.server * 1e3,
            f"flower_{name}_upload_ratio": peer.upload / (4 * configuration.size),
            f"flower_{name}_error": peer.error,
            f"client_times_{name}": spent / client, f"server_times_{name}": peer.server / server,
        }  # fmt: skip
    return row


def _vector(values: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).standard_normal(values, dtype=np.float32)
    return np.clip(drawn, -BOUND, BOUND)


def _one_pass(values: int) -> float:
    """CPU seconds of AES-192 in counter mode over a mask, and nothing else."""
    room, zeros = bytearray(4 * CHUNK + 16), memoryview(bytes(4 * CHUNK))
    sizes = [min(CHUNK, values - at) for at in range(0, values, CHUNK)]
    found = []
    for _ in range(15):
        cipher = stream(os.urandom(32))
        start = time.process_time()
        for size in sizes:
            cipher.update_into(zeros[: 4 * size], room)
        found.append(time.process_time() - start)
    return statistics.median(found)


def _one_check() -> float:
    """CPU seconds of checking one signature."""
    identity = Identity.new()
    verify, signature = roster_verifier({"a": identity.public}), identity.sign(bytes(128))
    start = time.process_time()
    for _ in range(500):
        verify("a", bytes(128), signature)
    return (time.process_time() - start) / 500


# clients, neighbours, threshold, values, dropped, most seconds of a client and of the server.
TARGETS: Sequence[tuple[int, int, int, int, int, float | None, float]] = (
    (100, 99, 51, 1_000_000, 10, 0.2, 1.5),
    (100, 42, 22, 1_000_000, 10, 0.1, 0.9),
    (1000, 52, 28, 100_000, 50, None, 2.0),
)


def target(
    clients: int, near: int, threshold: int, values: int, dropped: int,
    most_client: float | None, most_server: float,
) -> dict[str, Any]:  # fmt: skip
    """A sum whose cost was promised; ten of its clients are timed."""
    names = tuple(f"client-{number:04}" for number in range(clients))
    configuration = Configuration(
        Moment("benchmark", 1, 1), names, near, threshold, clients // 2 + 1, 5,
        (Channel.fitted("update", values, BOUND, clients),),
    )  # fmt: skip
    vector = _vector(values)
    found = [ours(configuration, vector, dropped, looked_at=10) for _ in range(3)]
    client = statistics.median(seconds for each in found for seconds in each.clients)
    server = statistics.median(each.server for each in found)
    upload = found[0].upload
    return {
        "clients": clients, "neighbours": near, "values": values, "dropped": dropped,
        "client_s": client, "most_client_s": most_client,
        "server_s": server, "most_server_s": most_server,
        "upload": upload, "most_upload": 4 * values + 150 * near + 1000,
        "held": server <= most_server and (most_client is None or client <= most_client)
        and upload <= 4 * values + 150 * near + 1000,
    }  # fmt: skip


def _dated(path: Path) -> tuple[str, str]:
    return path.stem.rpartition("_")[2], path.name


HEADER = (
    "clients", "values", "dropped", "k, t", "client ms", "of it signatures", "of it AES",
    "Flower, all with all", "Flower, same k, t", "server ms", "of it AES", "Flower, all with all",
    "Flower, same k, t", "bytes a value", "Flower's",
)  # fmt: skip


def table(folder: Path) -> str:
    """The last result of each size."""
    rows = dict[tuple[int, int, int], dict[str, Any]]()
    for path in sorted(folder.glob("secagg-[0-9]*.json"), key=_dated):
        for row in json.loads(path.read_text())["rows"]:
            key = row["clients"], row["values"], row["dropped"]
            rows[key] = rows.get(key, {}) | row
    return markdown(HEADER, [_line(rows[key]) for key in sorted(rows)])


def _line(row: dict[str, Any]) -> list[str]:
    def peer(who: str, which: str) -> str:
        if f"flower_{which}_{who}_ms" not in row:
            return ""
        spent, times = row[f"flower_{which}_{who}_ms"], row[f"{who}_times_{which}"]
        return f"{spent:.0f} ({times:.1f}×)"

    return [
        str(row["clients"]), f"{row['values']:,}", str(row["dropped"]),
        f"{row['neighbours']}, {row['threshold']}",
        f"{row['client_ms']:.1f}", f"{row['signatures_ms']:.1f}", f"{row['limit_client_ms']:.1f}",
        peer("client", "all"), peer("client", "same"),
        f"{row['server_ms']:.0f}", f"{row['limit_server_ms']:.0f}",
        peer("server", "all"), peer("server", "same"),
        f"{4 * row['upload_ratio']:.2f}",
        f"{4 * max(row[key] for key in row if key.endswith('_upload_ratio')):.2f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
