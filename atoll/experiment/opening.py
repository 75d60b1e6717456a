"""The server's half of the opening: what clients bring, asked once and kept."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from atoll.config import Experiment, dump
from atoll.core.facts import STRICT
from atoll.errors import PayloadError, RunError
from atoll.experiment.offers import versions
from atoll.experiment.terms import Agreed, Offer, Opening
from atoll.frames import Frame, Kind
from atoll.runtimes.gathering import Bounds, Closing, Gathering
from atoll.runtimes.letters import OPENING, Letter
from atoll.runtimes.messages import read
from atoll.runtimes.post import Post
from atoll.runtimes.spool import Why, failure_in, frames_of

__all__ = ["LIMIT", "Known", "known", "no_offer", "offer_in", "offers_of", "opening_letter"]

LIMIT = 2**24
"""Bytes of an offer at most."""


class Known(BaseModel):
    """federation.json: what a server that is started again goes on with.

    joined: offers of clients that came after all had agreed.
    """

    model_config = STRICT

    run: str
    offers: dict[str, Offer]
    agreed: Agreed | None = None
    joined: dict[str, Offer] = Field(default_factory=dict)


def known(kept: Path) -> Known:
    """What an earlier process found out; a new federation where there was none.

    Raises:
        RunError: when the file is damaged.
    """
    if not kept.is_file():
        return Known(run=uuid.uuid4().hex, offers={})
    try:
        return Known.model_validate_json(kept.read_bytes())
    except ValidationError as error:
        raise RunError(f"{kept} is damaged ({error.error_count()} errors); put it back, or set "
                       "output_dir to a new directory") from None  # fmt: skip


def offers_of(
    experiment: Experiment, post: Post, run: str, note: Callable[[str], None]
) -> dict[str, Offer]:
    """What the clients bring, when enough of them have come."""
    opening = Opening(versions=versions(), run=run, experiment=dump(experiment), agreed=None)
    letter = opening_letter("look", opening)
    federation, privacy = experiment.federation, experiment.privacy
    # With fewer no round could be summed, and who comes later is not among those who sign.
    summed = privacy.min_survivors if privacy.secure_aggregation else 0
    quorum = max(federation.min_clients, federation.clients_per_round or 0, summed)
    gathering = Gathering(
        post, lambda client, attempt: letter, None, Closing(quorum, federation.grace),
        bounds=Bounds(LIMIT, why_not=no_offer), note=note,
    )  # fmt: skip
    found = gathering.run("opening", sorted(post.lines))
    for client, (_, why) in sorted(found.failures.items()):
        note(f"{client} does not take part: {why}")
    answers = sorted(found.answers.items())
    return {client: offer_in(list(frames_of(path))) for client, path in answers}


def opening_letter(name: str, opening: Opening) -> Letter:
    """What a client's process is opened with."""
    frame = Frame(Kind.OPEN, 0, opening.model_dump_json().encode())
    return Letter.of(f"{OPENING}-{name}", [frame])


def offer_in(frames: Sequence[Frame]) -> Offer:
    """The offer that a client answered.

    Raises:
        PayloadError: something else.
    """
    if len(frames) != 1 or frames[0].kind is not Kind.READY:
        raise PayloadError("it answers something else than was asked")
    return read(Offer, frames[0].data)


def no_offer(client: str, path: Path) -> Why | None:
    """Why an answer in the spool is no offer."""
    try:
        told = failure_in(client, path)
        if told is None:
            offer_in(list(frames_of(path)))
        return told
    except PayloadError as error:
        return "payload", str(error)
