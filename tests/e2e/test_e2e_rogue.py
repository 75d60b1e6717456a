"""Sites with keys of the federation that answer what they should not: the server says what each has
done, and the round goes on with the others."""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from atoll.core import Reply
from atoll.runtimes.letters import PIECE, Answer, Call, packed, unpacked
from atoll.runtimes.lines import QUIET
from tests.e2e.test_e2e_federation import rounds_of
from tests.support.learnable import write_learnable
from tests.support.models import Zoo
from tests.support.rogue import Misdeed, Rogue
from tests.support.sites import federation, waited

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts Flower's processes")
GIGABYTE = 2**30
NAMES = ("ada", "bob", "eve", "mal")
Tree = Mapping[str, Tensor]


def bent(change: Callable[[Tree], Tree]) -> Misdeed:
    """Another update than was learned."""

    def bend(reply: Reply) -> Reply:
        update = reply.payload["update"]
        other = replace(update, tree=dict(change(update.tree)))
        return replace(reply, payload={**reply.payload, "update": other})

    return Misdeed(bend=bend)


def first(change: Callable[[Tensor], Tensor]) -> Misdeed:
    """Another tensor; the rest of the update is as it should be."""
    return bent(lambda tree: {**tree, min(tree): change(tree[min(tree)])})


def announced(rogue: Rogue, call: Call, honest: bytes) -> bytes:
    answer = unpacked(Answer, honest)[0]
    return packed(answer.model_copy(update={"size": GIGABYTE, "piece": None}))


def begun(rogue: Rogue, call: Call, honest: bytes) -> bytes:
    """A gigabyte, and its first piece at once."""
    answer = unpacked(Answer, honest)[0]
    return packed(answer.model_copy(update={"size": GIGABYTE}), [os.urandom(PIECE)])


def in_the_name_of_ada(rogue: Rogue, call: Call, honest: bytes) -> bytes:
    answer, body = unpacked(Answer, honest)
    return packed(answer.model_copy(update={"client": "ada"}), [bytes(body)])


def late(rogue: Rogue, call: Call, honest: bytes) -> bytes:
    """So late that it is asked once more."""
    time.sleep(QUIET + 1)
    return honest


def once_more(rogue: Rogue, call: Call, honest: bytes) -> bytes:
    return rogue.said[call.letter]


HONEST = (Misdeed(), "")
MISDEEDS = {
    "mal": (
        HONEST,
        (bent(lambda tree: {f"{name}.v": value for name, value in tree.items()}),
         "tensors of channel 'update' do not match what was asked for: "),
        (first(lambda value: value.flatten()[1:]), "of channel 'update' is float32[63], expected "),
        (first(lambda value: value.double()), "of channel 'update' is float64[2, 32], expected "),
        (first(lambda value: value * float("nan")), "holds values that are not finite"),
        (Misdeed(say=late, again=once_more), ""),
        (Misdeed(say=lambda rogue, call, honest: rogue.said["r1-e1"]), "with its answer to r1-e1"),
    ),
    "eve": (
        HONEST,
        (Misdeed(say=announced), "eve announces an answer of 1,073,741,824 bytes; at most "),
        (Misdeed(say=begun), "eve announces an answer of 1,073,741,824 bytes; at most "),
        (Misdeed(say=lambda rogue, call, honest: b"\x00garbage"),
         "a message that came is refused: Invalid JSON"),
        (Misdeed(say=in_the_name_of_ada), "eve answers as ada"),
        (Misdeed(bend=lambda reply: replace(reply, client="ada")),
         "a record came that was not asked for"),
        HONEST,
    ),
}  # fmt: skip
"""What each does in rounds 1, 2, …, and the words for it; none where it counts like anybody."""


def pour(port: int, ca: Path) -> None:
    """Send a gigabyte to the port in one request, as far as it takes it."""
    head = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nContent-Length: {GIGABYTE}\r\n\r\n"
    context, part = ssl.create_default_context(cafile=ca), bytes(2**20)
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as found,
    ):
        found.sendall(head.encode())
        for _ in range(GIGABYTE // len(part)):
            found.sendall(part)


def told(said: str, name: str, number: int) -> str:
    """Why a client was left out of a round, as the server says it."""
    found = re.findall(rf"^round {number}: {name} is left out: (.*)$", said, re.MULTILINE)
    return found[0] if found else ""


def test_each_misdeed_is_told_and_the_round_goes_on(zoo: Zoo, tmp_path: Path) -> None:
    rounds = len(MISDEEDS["mal"])
    write_learnable(tmp_path, zoo, NAMES, {"num_rounds": rounds, "min_clients": 2, "grace": 90})
    with federation(tmp_path, NAMES) as people, ExitStack() as stack:
        server = people.coordinate("experiment.yaml")
        for name in set(NAMES) - set(MISDEEDS):
            people.join(name)
        rogues = {}
        for name, each in MISDEEDS.items():
            what = {number: misdeed for number, (misdeed, _) in enumerate(each, start=1)}
            rogue = Rogue(name, tmp_path, f"localhost:{people.port}", what)
            rogues[name] = stack.enter_context(rogue)
        waited(lambda: "\nround 0/" in server.said or server.process.poll() is not None)
        pour(people.port, tmp_path / "fed/ada/ca.pem")
        assert server.process.wait(300) == 0, server.said
    said, lines = server.said, rounds_of(tmp_path / "runs/there")
    for number in range(1, rounds + 1):
        whys = {name: each[number - 1][1] for name, each in MISDEEDS.items()}
        for name, why in whys.items():
            found = told(said, name, number)
            assert why in found
            assert bool(why) == bool(found), found
        line, counted = lines[number], len(NAMES) - sum(map(bool, whys.values()))
        assert line["clients"] == counted
        # What is sent twice, as in round 6, counts once.
        if number < rounds:
            assert line["bytes_up"] * len(NAMES) == lines[1]["bytes_up"] * counted
    assert "r6-e6" in rogues["mal"].repeated
    assert "1073741824 bytes in one request; at most 6,291,456 are read" in said
    assert "Traceback" not in said
