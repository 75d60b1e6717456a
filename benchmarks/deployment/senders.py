"""Synthetic senders without torch: many clients in one process, each a node of the Fleet API.

They take letters as sites do, and answer with as many values as they were asked about.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message
from flwr.app.message import make_message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supernode.fleet_http_connection import http_request_response

from atoll.flower.arrivals import Arrival
from atoll.flower.message import content_of, head_in
from atoll.frames import HEAD, Kind

PIECE = 60 * 2**20
"""As the server cuts letters."""
TENSORS = 10
ADMITTED = 0.3
"""Seconds in which a server lets one client in."""
SLEEP = 0.5
"""Seconds between two looks for a message."""


def main(port: int, folder: Path, values: int, names: Sequence[str]) -> None:
    """Answer until killed."""
    assert "torch" not in sys.modules
    # The server lets one key after the other in, and Flower ends a process whose key is not yet.
    time.sleep(ADMITTED * len(names))
    threads = [Thread(target=_node, args=(port, folder / name, values)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _node(port: int, folder: Path, values: int) -> None:
    key = load_ssh_private_key((folder / "client.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    sender = Sender(folder.name, values)
    ca = (folder / "ca.pem").read_bytes()
    with http_request_response(f"localhost:{port}", False, ca, (key, key.public_key())) as ends:
        while True:
            came = ends[1]()
            if came is None:
                time.sleep(SLEEP)
            else:
                _answered(ends, came, sender)


def _answered(ends: Any, came: Any, sender: Sender) -> None:
    """One message of Flower's, taken and answered."""
    _, _, send, _, _, pull, push, confirm = ends
    message, tree = came
    run = message.metadata.run_id
    arrival = Arrival(tree, lambda name: pull(run, name), seconds=60.0)
    # What was sent is looked at as little as it can be: only that it comes.
    size = sum(map(len, arrival.body()))
    confirm(run, message.metadata.message_id)
    said, body = sender.said(json.loads(head_in(arrival.message) or b"{}"), size)
    told = json.dumps(said).encode()
    content = content_of(b"".join((struct.pack("<I", len(told)), told, body)))
    reply = make_message(Message(content, reply_to=message).metadata, content)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        wanted, session = send(reply, get_object_tree(reply), 0.0)
        for name, one in get_all_nested_objects(reply).items():
            if name in wanted:
                push(run, session, name, one.deflate())


class Sender:
    """What one client says to calls."""

    def __init__(self, name: str, values: int) -> None:
        self._name, self._values = name, values
        self._came: dict[str, set[int]] = {}
        self._answer: tuple[str, bytes] = ("", b"")

    def said(self, call: dict[str, Any], size: int) -> tuple[dict[str, Any], bytes]:
        """The head and the body of an answer."""
        word: dict[str, Any] = {"client": self._name, "session": "one", "letter": call["letter"]}
        came = self._came.setdefault(call["digest"], set())
        if call.get("piece") is not None and size:
            came.add(call["piece"])
        missing = sorted(set(range(max(1, -(-call["size"] // PIECE)))) - came)
        if missing and call["size"]:
            return {**word, "state": "incomplete", "missing": missing[:64]}, b""
        data = self._made(call)
        word |= {"state": "done", "size": len(data), "digest": hashlib.sha256(data).hexdigest()}
        piece = call.get("fetch")
        if piece is None and len(data) <= 2**22:
            piece = 0
        if piece is None:
            return word, b""
        return {**word, "piece": piece}, data[piece * PIECE : (piece + 1) * PIECE]

    def _made(self, call: dict[str, Any]) -> bytes:
        if self._answer[0] != call["digest"]:
            opening = call["letter"].startswith("opening")
            data = _ready() if opening else self._reply(call["digest"])
            self._answer = (call["digest"], data)
        return self._answer[1]

    def _reply(self, digest: str) -> bytes:
        """A record of the form that the toy algorithm of `toy.py` sends; all values differ."""
        each, seed = self._values // TENSORS, hashlib.sha256((self._name + digest).encode())
        draw = np.random.default_rng(int.from_bytes(seed.digest()[:8], "little"))
        tensors = {f"0/layer.{i}.weight": [each] for i in range(TENSORS)} | {"1/value": []}
        channels = [
            {"name": "update", "reduce": "mean", "weight": "weight", "l2": None},
            {"name": "weight", "reduce": "sum", "weight": None, "l2": None},
        ]
        facts = {"record": "reply", "client": self._name, "channels": channels}
        names = [[name[2:] for name in tensors if name[0] == tree] for tree in "01"]
        header: dict[str, Any] = {
            "__metadata__": {"facts": json.dumps(facts), "names": json.dumps(names)}
        }
        at = 0
        for name, shape in tensors.items():
            end = at + 4 * (shape[0] if shape else 1)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        body = draw.standard_normal(each * TENSORS, np.float32).tobytes() + struct.pack("<f", 1.0)
        record = b"".join((struct.pack("<Q", len(text)), text, body))
        head = HEAD.pack(Kind.RECORD.value, 0, len(record))
        return b"".join((head, record, HEAD.pack(Kind.DONE.value, 0, 0)))


def _ready() -> bytes:
    return HEAD.pack(Kind.READY.value, 0, 2) + b"{}"


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
