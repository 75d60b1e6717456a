"""Who gets in: keys of the roster alone, over TLS of the federation's own CA, while it says so."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from atoll.certs import admitted
from atoll.certs.admission import revoke
from atoll.certs.begin import begin
from atoll.flower.coordinator import Place
from atoll.flower.engine import free_port
from atoll.flower.site import Connection, Site
from atoll.frames import Frame, Kind
from atoll.runtimes.letters import OPENING, Letter
from atoll.runtimes.post import Post
from tests.support.wire import RUN, Peer, toy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts Flower's processes")
LETTER = Letter.of(f"{OPENING}-look", [Frame(Kind.OPEN, 0, b"{}")])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    begin(tmp_path / "fed", ["localhost"], ["ada", "bob"], None)
    begin(tmp_path / "other", ["localhost"], ["eve"], None)
    return tmp_path


def test_only_who_is_on_the_roster_gets_in_and_for_as_long(folder: Path) -> None:
    server, port, told, clock = folder / "fed" / "server", free_port(), list[str](), [0]

    def members() -> dict[str, str]:
        now = datetime.now(UTC) + timedelta(days=clock[0])
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        found = admitted(server, now=now).members.items()
        return {name: one.public_key.public_bytes(*form).decode() for name, one in found}

    place = Place(f"127.0.0.1:{port}", *(server / f"{name}" for name in
                  ("ca.pem", "server.pem", "server.key")))  # fmt: skip
    ca, own = folder / "fed" / "ada" / "ca.pem", folder / "other" / "eve"

    with ExitStack() as stack:
        post = stack.enter_context(Post(place, RUN, folder / "spool", members, told.append))

        def site(name: str, ca: Path, key: Path) -> Site:
            take = Peer(folder / "sites" / name, name, {"fit": toy()})
            found = Site(Connection(f"localhost:{port}", ca, key), folder / "sites" / name, take)
            stack.enter_context(closing(found))
            found.start()
            return found

        sites = {name: site(name, ca, folder / "fed" / name / "client.key") for name in
                 ("ada", "bob")}  # fmt: skip
        stranger = site("eve", ca, own / "client.key")
        misled = site("dan", own / "ca.pem", folder / "fed" / "bob" / "client.key")
        for name in sites:
            post.send(name, LETTER, limit=2**10)
        lines = post.lines
        until(post, lambda: all(line.done for line in lines.values()))
        assert set(lines) == {"ada", "bob"}
        # A key of another federation is known to nobody; a server of another CA gets no word.
        until(post, lambda: "is refused at activate-node: its key is not of" in str(told))
        until(post, lambda: stranger.gone() is not None)
        until(post, lambda: misled.gone() is not None)

        revoke("bob", server)
        until(post, lambda: "bob" not in lines)
        until(post, lambda: sites["bob"].gone() is not None)
        again = Letter.of(f"{OPENING}-again", [Frame(Kind.OPEN, 0, b"{}")])
        post.send("ada", again, limit=2**10)
        until(post, lambda: lines["ada"].done)

        clock[0] = 5000
        until(post, lambda: not lines)
        until(post, lambda: sites["ada"].gone() is not None)


def until(post: Post, so: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not so():
        assert time.monotonic() < end
        assert list(post.pump(0.2)) == []
