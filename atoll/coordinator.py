"""A federation's server: from an experiment file and certificates to a finished run.

offers     every client says what it brings          (once; kept in the run directory)
agreement  labels, moments, the base's fingerprint
rounds     as in a simulation, with `Flower` as the runtime
arms       final scores of each client's own rows, and of its own model
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from atoll.config import Loaded, dump
from atoll.core import Runtime, State
from atoll.disk.files import write_text
from atoll.experiment.checks import check_late
from atoll.experiment.federation_manifest import sign_manifest
from atoll.experiment.local_arm import LOCAL, local_arm
from atoll.experiment.offers import agreed, counts_of, server_data, versions
from atoll.experiment.opening import LIMIT, Known, known, offer_in, offers_of, opening_letter
from atoll.experiment.parties import closing_of, parties_of, private_of, roster_of
from atoll.experiment.rows import check_named
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.standing import Machine
from atoll.experiment.terms import Agreed, Offer, Opening
from atoll.flower.coordinator import Place
from atoll.flower.engine import give_back
from atoll.frames import Frame, Kind
from atoll.models.locate import fingerprint
from atoll.protection import Parties
from atoll.runs.board import Show, on_board
from atoll.runs.compare import Arm, Comparison
from atoll.runs.lines import RoundLine
from atoll.runs.remote import compared_there
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer, Where
from atoll.runtimes.flower_server import Flower
from atoll.runtimes.messages import Broken, read
from atoll.runtimes.opener import Opener
from atoll.runtimes.post import Post
from atoll.runtimes.seen import seen
from atoll.words import printable

__all__ = ["Server", "coordinate"]


@dataclass(frozen=True)
class Server:
    """Where sites connect, and who may.

    members: (note, which hears of who may not) -> public keys as PEM, by name.
    certs: the folder of its key and of the clients' certificates; None without TLS.
    """

    place: Place
    members: Callable[[Callable[[str], None]], Mapping[str, str]]
    certs: Path | None = None


def coordinate(
    loaded: Loaded, folder: Path, server: Server, observer: Observer, machine: Machine | None
) -> dict[str, Any]:
    """Run a federation to its end, and return the summary; started again, it goes on.

    Raises:
        AtollError: what cannot be agreed, or written.
    """
    check_named(loaded)
    give_back()
    with on_board(folder, loaded.experiment.federation.num_rounds, observer) as (observer, show):
        return _coordinated(loaded, folder, server, observer, show, machine)


def _coordinated(
    loaded: Loaded, folder: Path, server: Server, observer: Observer, show: Show,
    machine: Machine | None,
) -> dict[str, Any]:  # fmt: skip
    # What stands beside it is of this run, from the beginning.
    write_text(folder / "experiment.yaml", dump(loaded.experiment))
    kept = folder / "federation.json"
    found = known(kept)
    members = partial(server.members, observer.note)
    post = Post(server.place, found.run, folder / "federation", members, observer.note)
    about = {"run": found.run, "listen": server.place.listen, "tls": server.place.ca is not None}
    show(lambda: {**about, **seen(post)})
    with post:
        if found.agreed is None:
            found = found.model_copy(
                update={"offers": offers_of(loaded.experiment, post, found.run, observer.note)}
            )
        told = found.agreed or agreed(loaded.experiment, found.offers, "")
        parties = parties_of(loaded, found.offers, server.place.ca, found.run)
        setup = _prepared(loaded, found.offers, told, observer, machine, parties)
        observer.began(setup)
        if found.agreed is None:
            more = {
                "base": fingerprint(setup.base.backbone),
                "private": private_of(setup.protection or setup.rows),
            }
            told = told.model_copy(update={**more, "roster": roster_of(found.offers)})
            found = found.model_copy(update={"agreed": told})
            write_text(kept, found.model_dump_json())

        def joins(client: str, offer: Offer) -> None:
            if client not in found.offers:
                found.joined[client] = offer
                write_text(kept, found.model_dump_json())

        runtime = _runtime(setup, post, found, joins, observer)

        @contextmanager
        def opened(setup: Setup, path: Path, note: Callable[[str], None]) -> Iterator[Runtime]:
            yield runtime

        def compared(setup: Setup, state: State, rounds: int, observer: Observer) -> Comparison:
            if setup.experiment.privacy.hides:
                observer.note("nothing is measured: scores of clients' rows stay with them")
                return Comparison(Arm((), {}), joined=counts_of(found.joined))
            arms = compared_there(setup, runtime, state, rounds, observer)
            return replace(arms, joined=counts_of(found.joined))

        observer = _signing(observer, folder, server, found, runtime)
        return run_experiment(setup, folder, observer, Where(opened, compared))


def _signing(
    observer: Observer, folder: Path, server: Server, found: Known, runtime: Flower
) -> Observer:
    """The observer, which signs the run's manifest anew after every round."""
    certs, told = server.certs, found.agreed
    if certs is None or told is None:
        return observer

    def signed(line: RoundLine) -> None:
        sign_manifest(folder, certs, found.run, told, runtime.rounds)
        observer.round(line)

    return replace(observer, round=signed)


def _prepared(
    loaded: Loaded, offers: Mapping[str, Offer], told: Agreed, observer: Observer,
    machine: Machine | None, parties: Parties | None,
) -> Setup:  # fmt: skip
    """The setup of a server, which has no row."""
    data = server_data(loaded.experiment, offers, told)
    setup = prepare(loaded, note=observer.note, data=data, machine=machine, parties=parties)
    if "pooled" in loaded.experiment.evaluate.baselines:
        observer.note("baseline pooled is left out: nobody has all rows")
    algorithms = {**setup.program.algorithms, LOCAL: local_arm(setup)}
    return replace(setup, program=replace(setup.program, algorithms=algorithms))


def _runtime(
    setup: Setup,
    post: Post,
    found: Known,
    joins: Callable[[str, Offer], None],
    observer: Observer,
) -> Flower:
    """The runtime; `joins` hears of every client that was opened, and what it brings."""
    experiment = setup.experiment
    opening = Opening(
        versions=versions(), run=found.run, experiment=dump(experiment), agreed=found.agreed
    )

    def taken(client: str, frames: Sequence[Frame]) -> str | None:
        for frame in frames:
            if frame.kind is Kind.BROKEN:
                return printable(read(Broken, frame.data).message)
        offer = offer_in(frames)
        if offer.kind != setup.data.kind:
            return f"it holds {offer.kind} rows"
        joins(client, offer)
        return None

    check_late(setup.loaded, setup.program)
    closing = closing_of(experiment, setup.protection)
    opener = Opener(opening_letter("join", opening), taken, LIMIT)
    roster, algorithms = (*found.offers, *found.joined), setup.program.algorithms
    return Flower(post, roster, algorithms, opener, closing, note=observer.note)
