"""Between sites and their server: a relay that holds the server's key, and keeps what it reads."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

__all__ = ["Tap", "tapped"]


class Tap:
    """What was said on each connection, without TLS.   up: by sites.   down: by the server."""

    def __init__(self, certs: Path, server: int) -> None:
        self.up, self.down, self.port = list[bytearray](), list[bytearray](), 0
        self.open, self.over = Event(), Event()
        self._inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._inside.load_cert_chain(certs / "server.pem", certs / "server.key")
        self._outside = ssl.create_default_context(cafile=str(certs / "ca.pem"))
        self._server = server

    async def serve(self) -> None:
        """Until it is over."""
        listening = await asyncio.start_server(self._joined, "127.0.0.1", 0, ssl=self._inside)
        self.port = listening.sockets[0].getsockname()[1]
        self.open.set()
        async with listening:
            while not self.over.is_set():
                await asyncio.sleep(0.05)

    async def _joined(self, site: StreamReader, back: StreamWriter) -> None:
        self.up.append(bytearray())
        self.down.append(bytearray())
        up, down = self.up[-1], self.down[-1]
        # A server that is not there yet, or is gone, is nothing for a site to wait for.
        with contextlib.suppress(OSError), contextlib.closing(back):
            server, on = await asyncio.open_connection("localhost", self._server, ssl=self._outside)
            with contextlib.closing(on):
                await asyncio.gather(_carried(site, on, up), _carried(server, back, down))


async def _carried(source: StreamReader, target: StreamWriter, kept: bytearray) -> None:
    while data := await source.read(2**16):
        kept += data
        target.write(data)
        await target.drain()
    target.close()


@contextmanager
def tapped(certs: Path, server: int) -> Iterator[Tap]:
    """A relay to the server at a port of this machine; `certs`: the server's folder."""
    tap = Tap(certs, server)
    thread = Thread(target=lambda: asyncio.run(tap.serve()))
    thread.start()
    try:
        tap.open.wait(20)
        yield tap
    finally:
        tap.over.set()
        thread.join()
