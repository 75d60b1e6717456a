"""A site's process, once all that it needs is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from atoll.cli.output import note
from atoll.cli.page import paged
from atoll.egress.record import Egress
from atoll.egress.tally import Tally
from atoll.experiment.joining import Place
from atoll.flower.site import Connection
from atoll.flower.site import Site as Engine
from atoll.policy import describe, paused
from atoll.runtimes.mailbox import Mailbox
from atoll.site import Site
from atoll.status import Board, Doing

__all__ = ["serve"]


def serve(
    place: Place, connection: Connection, egress: Egress | None, board: Board, *, page: int | None
) -> None:
    """Answer a server until this process is stopped.

    page: the port of the site's page, 0 for any; None for no page.
    """

    def tell(text: str) -> None:
        board.note(text)
        note(text)

    def take(data: bytes) -> bytes:
        doing.hears()
        return mailbox.take(data)

    def cut(text: str) -> None:
        doing.connected = None
        tell(text)

    doing = Doing(connection.server)
    board.show(_facts(place, doing, recorded=egress is not None))
    tell(describe(place.policy))
    site = Site(place, egress, tell, doing)
    mailbox = Mailbox(place.state, place.name, site.knows)
    engine = Engine(connection, place.state, take)
    tell(f"{place.name}: connecting to {connection.server}")
    engine.keep_up(cut)
    try:
        with paged("site", place.state, page, note):
            site.work(mailbox)
    finally:
        engine.close()


def _facts(place: Place, doing: Doing, *, recorded: bool) -> Callable[[], Mapping[str, Any]]:
    """What stands in the site's status: what it does, whether it has paused, and what has left."""
    left, policy = Tally(place.state / "egress"), describe(place.policy).splitlines()
    return lambda: {
        "site": place.name,
        **asdict(doing),
        "paused": paused(place.state),
        "left": left.now() if recorded else None,
        "policy": policy,
    }
