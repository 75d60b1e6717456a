"""The server's half of a measured federation of ours: a line of JSON for each round."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from atoll.certs import admitted, server_files
from atoll.core import Federation, Position
from atoll.flower.coordinator import Place
from atoll.flower.engine import give_back
from atoll.frames import Frame, Kind
from atoll.round import federate
from atoll.runtimes.flower_server import Flower
from atoll.runtimes.gathering import Closing, Opener
from atoll.runtimes.letters import Letter
from atoll.runtimes.post import Post
from benchmarks.deployment.toy import first_state, program


def main(values: int, rounds: int, port: int, certs: Path, folder: Path) -> None:
    """Run so many rounds with all clients that are admitted."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    torch.set_num_threads(1)
    give_back()
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    members = {
        name: one.public_key.public_bytes(*form).decode()
        for name, one in admitted(certs).members.items()
    }
    files = server_files(certs)
    place = Place(f"127.0.0.1:{port}", files.ca, files.certificate, files.key)
    opener = Opener(Letter.of("opening", [Frame(Kind.OPEN, 0, b"{}")]), lambda client, frames: None)
    parts = program()
    with Post(place, 32 * "b", folder, lambda: members, lambda text: None) as post:
        runtime = Flower(
            post, tuple(members), parts.algorithms, opener, Closing(len(members), 0.0),
            note=lambda text: None,
        )  # fmt: skip
        federation = Federation(0, "bench", rounds, len(members), len(members))
        position = Position(first_state(values))
        while any(line.node is None for line in post.lines.values()):
            list(post.pump(0.2))
        # What is here now, the server's state among it, is not what rounds take.
        print(json.dumps({"time": time.time(), "round": "ready"}), flush=True)
        time.sleep(1)
        rounds = federate(parts, runtime, federation, position)
        del position
        for report in rounds:
            answered = [len(exchange.clients) for exchange in report.exchanges]
            print(json.dumps({"time": time.time(), "round": report.round, "clients": answered}),
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *map(Path, sys.argv[4:6]))
