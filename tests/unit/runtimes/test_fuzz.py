"""Bytes from the other side, mutated and made up: a sentence or a value, and never much memory.

`make test` tries a few thousand; `python -m tests.unit.runtimes.test_fuzz MINUTES` goes on.
"""

from __future__ import annotations

import random
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.core import Channel, Context, Failure, Reply, Request
from atoll.core.wire import pack, pack_payload, pack_state, unpack, unpack_payload, unpack_state
from atoll.errors import PayloadError
from atoll.frames import Frame, Kind, read_frame
from atoll.runtimes.letters import Answer, Call, Letter, frames_in, packed, unpacked
from atoll.runtimes.messages import Ask, Broken, Identity, broken, read

UNFOLDED = 48
"""Bytes of memory for each byte that came: what Python makes of JSON; of tensors, three."""
FIXED = 2**18

PAYLOAD = {
    "update": Channel({"a.weight": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int8)}, "mean",
                      weight="examples"),
    "examples": Channel({"count": torch.tensor(3.0)}, "sum"),
}  # fmt: skip
CONTEXT = Context(1, "run", 2, 3, ("ada", "bob"), 2, "ada")
CALL = Call(run=32 * "a", letter="r1-e0", size=9, digest=64 * "0", piece=0)
ANSWER = Answer(client="ada", session="s", letter="r1-e0", state="incomplete", missing=(1, 2, 3))
LETTER = Letter.of("x", [Frame(Kind.RECORD, 1, b"abc"), Frame(Kind.ASK, 2, b"{}")]).rest
ASK = Ask(clients=("ada",), questions=()).model_dump_json().encode()
KINDS = (Kind.RECORD, Kind.ASK, Kind.DONE)

Reader = Callable[[bytes], Any]
READERS: dict[str, tuple[Reader, list[bytes]]] = {
    "record": (unpack, [pack(Request(CONTEXT, PAYLOAD)), pack(Reply("ada", PAYLOAD)), pack(CONTEXT),
                        pack(Failure("ada", "device", "asleep"))]),
    "payload": (unpack_payload, [pack_payload(PAYLOAD)]),
    "state": (unpack_state, [pack_state({"adapter": {"w": torch.ones(3)}})]),
    "call": (lambda data: unpacked(Call, data), [packed(CALL, [b"body"])]),
    "answer": (lambda data: unpacked(Answer, data), [packed(ANSWER, [b"body"])]),
    "letter": (lambda data: list(frames_in(data, kinds=KINDS)), [LETTER]),
    "ask": (lambda data: read(Ask, data), [ASK]),
    "broken": (lambda data: read(Broken, data), [broken(ValueError("x"))]),
    "identity": (lambda data: read(Identity, data), [b'{"protocol":1,"atoll":"1","torch":"2"}']),
}  # fmt: skip
TOKENS = (
    b"[", b"]", b"{", b"}", b'"', b",", b":", b"0", b"-1", b"1e999", b"NaN", b"null", b"true",
    b"9" * 400, b'"dtype":"F32"', b'"shape":[]', b'"shape":[4294967296,0]', b'"data_offsets":[0,0]',
    b'"__metadata__"', b"\\ud800", b"\x00", b"\xff", b"\xf4\x90\x80\x80", b"[" * 3000,
    struct.pack("<Q", 2**63), struct.pack("<I", 2**32 - 1), struct.pack("<Q", 2**24),
)  # fmt: skip


def mutants(valid: list[bytes], seed: int) -> Iterator[bytes]:
    """Valid bytes changed in a few places, spliced with each other, cut, and made up."""
    draw = random.Random(seed)
    while True:
        data = bytearray(draw.choice(valid) if draw.random() < 0.9 else draw.randbytes(40))
        for _ in range(draw.choice((1, 1, 2, 4, 8))):
            at = draw.randrange(len(data) + 1)
            match draw.randrange(6):
                case 0:
                    data[at:at] = draw.choice(TOKENS)
                case 1:
                    data[at : at + draw.randrange(9)] = b""
                case 2:
                    data[at : at + 1] = bytes([draw.randrange(256)])
                case 3:
                    other = draw.choice(valid)
                    data[at:] = other[draw.randrange(len(other)) :]
                case 4:
                    data[at : at + 8] = struct.pack(
                        "<Q", draw.choice((0, 1, 2**31, 2**40, 2**64 - 1))
                    )
                case _:
                    data[at:at] = data[at : at + draw.randrange(64)] * draw.randrange(9)
        yield bytes(data)


def tried(reader: Reader, data: bytes) -> None:
    """Read it: a value or `PayloadError`, within memory that grows with what came alone."""
    tracemalloc.clear_traces()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    with suppress(PayloadError):
        reader(data)
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak < UNFOLDED * len(data) + FIXED, f"{peak} bytes for {data[:200]!r} ({len(data)})"


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", READERS)
def test_mutants(name: str) -> None:
    reader, valid = READERS[name]
    for data in valid[: 1 if name == "identity" else None]:
        tried(reader, data)
    for _, data in zip(range(600), mutants(valid, seed=11), strict=False):
        tried(reader, data)


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


HEAVY = {
    "lists": header(b"[" + b"[]," * 300_000 + b"[]]"),
    "objects": header(b'{"a":[' + b"{}," * 300_000 + b"{}]}"),
    "numbers": header(b'{"a":[' + b"9," * 400_000 + b"9]}"),
    "keys": header(b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}"),
    "tensors": header(b"{" + b",".join(
        b'"0/%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}' % n for n in range(20_000)
    ) + b"}"),
    "deep": header(b"[" * 10**6),
    "a long number": header(b"9" * 10**6),
    "a header of 16 MiB that is not there": struct.pack("<Q", 2**24) + b"{}",
    "a header of 8 EiB": struct.pack("<Q", 2**63) + b"{}",
}  # fmt: skip


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("what", HEAVY)
def test_much_for_little(what: str) -> None:
    tried(unpack, HEAVY[what])


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", [Answer, Call])
def test_a_head_that_is_all_of_a_message(kind: Any) -> None:
    text = b'{"missing":[' + b"1," * 2**21 + b"1]}"
    tried(lambda data: unpacked(kind, data), struct.pack("<I", len(text)) + text)


def test_a_frame_that_is_announced_and_does_not_come(tmp_path: Path) -> None:
    (tmp_path / "pipe").write_bytes(struct.pack("<c3xIQ", b"v", 1, 2**32) + b"few")
    with (tmp_path / "pipe").open("rb") as opened:
        tracemalloc.start()
        assert read_frame(opened.fileno()) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        tracemalloc.stop()


def main(minutes: float) -> None:
    """All readers in turn, with other mutants each time."""
    tracemalloc.start()
    end, seed, number = time.monotonic() + 60 * minutes, random.randrange(2**32), 0
    while time.monotonic() < end:
        for reader, valid in READERS.values():
            for _, data in zip(range(500), mutants(valid, seed + number), strict=False):
                tried(reader, data)
            number += 1
    print(f"{500 * number:,} tried from seed {seed}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
