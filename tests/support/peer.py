"""A worker in plain Python, started as a script: what a client is called is what becomes of it.

It speaks the frames, messages and records from their description, without Atoll and torch.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

HEAD = struct.Struct("<c3xIQ")


def read() -> tuple[bytes, int, bytes]:
    head = sys.stdin.buffer.read(HEAD.size)
    if len(head) < HEAD.size:
        sys.exit()
    letter, number, length = HEAD.unpack(head)
    return letter, number, sys.stdin.buffer.read(length)


def write(letter: bytes, number: int, data: bytes = b"") -> None:
    sys.stdout.buffer.write(HEAD.pack(letter, number, len(data)) + data)
    sys.stdout.buffer.flush()


def failure(client: str, message: str) -> bytes:
    """A record of a failure: a safetensors file without tensors."""
    facts = {"record": "failure", "client": client, "kind": "told", "message": message}
    header = json.dumps({"__metadata__": {"facts": json.dumps(facts), "names": "[]"}}).encode()
    return struct.pack("<Q", len(header)) + header


def once(folder: Path, name: str) -> bool:
    """Whether this is the first time, in all processes."""
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def misfortune(client: str, number: int, folder: Path) -> None:
    if client == "dies":
        sys.stderr.write("MemoryError: 7 TiB\n")
        os._exit(1)
    if client == "killed-once" and once(folder, "killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if client == "broken":
        write(b"b", number, json.dumps({"error": "DataError", "message": "no rows"}).encode())
    if client == "garbled" and once(folder, "garbled"):
        write(b"v", number, b"no record at all")
    if client == "stranger" and once(folder, "stranger"):
        write(b"v", number, failure("nobody", "hello"))
    if client == "forks" and once(folder, "forked"):
        child = os.fork()
        if child == 0:  # It keeps the pipe open.
            time.sleep(600)
        (folder / "child").write_text(str(child))
        os._exit(4)
    if client == "stops" and once(folder, "stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    if client == "sleeps":
        time.sleep(600)


def main(folder: Path) -> None:
    letter, _, identity = read()
    assert letter == b"o"
    if (folder / "stillborn").exists():
        sys.exit("cannot begin")
    if (folder / "other").exists():
        identity = json.dumps({**json.loads(identity), "data": "other"}).encode()
    write(b"r", 0, identity)
    records: dict[int, bytes] = {}
    asks = 0
    while True:
        letter, number, data = read()
        if letter == b"v":
            records[number] = data
            continue
        asks += 1
        ask = json.loads(data)
        for client in ask["clients"]:
            misfortune(client, number, folder)
            for question in ask["questions"]:
                told = {"pid": os.getpid(), "asks": asks, "held": sorted(records), **question}
                write(b"v", number, failure(client, json.dumps({**told, "of": ask["clients"]})))
        named = {each for question in ask["questions"] for each in question["requests"]}
        records = {each: records[each] for each in named}
        write(b"d", number)
        if "stops-later" in ask["clients"]:
            os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
