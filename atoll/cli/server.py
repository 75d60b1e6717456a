"""`atoll server`: the coordinator of a federation across machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.federation import (
    CertsOption,
    ClientsOption,
    InsecureOption,
    ListenOption,
    UiOption,
    address,
    certificates,
    check_free,
)
from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.process import load_torch, stoppable
from atoll.errors import ConfigError

if TYPE_CHECKING:
    from atoll.config import Loaded
    from atoll.coordinator import Server
    from atoll.experiment.standing import Standing

__all__ = ["server"]


def server(
    experiment: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", hidden=True)
    ] = None,
    listen: ListenOption = "",
    certs: CertsOption = None,
    insecure: InsecureOption = False,
    clients: ClientsOption = "",
    ui: UiOption = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Coordinate a federation across machines: sites connect with `atoll client`.

    FILE is the experiment file that `atoll run` simulates; data.path and data.partition are not
    read here. KEY=VALUE sets any key of it.

    A server that was stopped, however it was, goes on when the same command is given again.
    """
    from atoll.config import dump, load

    loaded = load(experiment, overrides=values or [])
    place = _server(listen or f"{'127.0.0.1' if insecure else '0.0.0.0'}:9092", certs, insecure,
                    clients)  # fmt: skip
    load_torch()
    from atoll.experiment.standing import other_run, standing

    folder = Path(loaded.experiment.output_dir).expanduser()
    found = standing(folder, dump(loaded.experiment))
    if found.state == "other":
        raise other_run(folder, found.changes)
    again = found.state == "finished"
    if again:
        note(f"This run is finished; its result stands in {folder}.")
    else:
        note(f"Sites connect to {place.place.listen}; the run is written to {folder}.")
    summary = found.summary or {} if again else _coordinated(loaded, place, found, page=ui)
    if output_format is Format.json:
        emit({"run": str(folder), "already_finished": again, **summary})
        return
    from atoll.cli.summary_text import show_run

    data = json.loads((folder / "run.json").read_text(encoding="utf-8"))["data"]
    show_run(summary, folder, common_test=data["test"] is not None, rows_here=False)


def _coordinated(
    loaded: Loaded, place: Server, found: Standing, *, page: int | None
) -> dict[str, Any]:
    from rich.console import Console

    from atoll.cli.display import Display
    from atoll.cli.page import paged
    from atoll.coordinator import coordinate
    from atoll.report.write import try_report
    from atoll.runs.where import Observer

    folder = Path(loaded.experiment.output_dir).expanduser()
    with Display(Console(stderr=True)) as show, paged("server", folder, page, show.note):
        watch = Observer(show.note, show.step, show.resumed, show.round, show.begin)
        try:
            with stoppable():
                summary = coordinate(loaded, folder, place, watch, found.machine)
        except KeyboardInterrupt:
            show.note(f"stopped; {folder} keeps all finished rounds: the same command goes on "
                      "after them")  # fmt: skip
            raise
        try_report(folder, note=show.note)
        return summary


def _server(listen: str, certs: Path | None, insecure: bool, clients: str) -> Server:
    """Where sites connect, and who may.

    Raises:
        AtollError: options that do not fit each other, certificates that cannot be used.
    """
    check_free("--listen", address("--listen", listen, insecure=insecure))
    from atoll.certs.names import client_names

    names = client_names([clients])
    if insecure and not names:
        raise ConfigError("--insecure needs --clients A,B: the names of those who take part")
    folder = certificates(
        certs,
        insecure=insecure,
        missing="--certs is missing; `atoll certs init federation/ --server NAME --clients A,B` "
        "makes a folder for it, and --insecure does without on this machine alone",
    )
    from atoll.coordinator import Server
    from atoll.flower.coordinator import Place

    if folder is None:
        return Server(Place(listen), lambda note: dict.fromkeys(names, ""))
    from atoll.certs import server_files

    files = server_files(folder)
    place = Place(listen, files.ca, files.certificate, files.key)
    return Server(place, _members(folder), folder)


def _members(folder: Path) -> Callable[[Callable[[str], None]], Mapping[str, str]]:
    """Who is admitted at the moment of each call; who is not is told once."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from atoll.certs import admitted

    told: dict[str, str] = {}

    def members(note: Callable[[str], None]) -> Mapping[str, str]:
        found = admitted(folder)
        for name, why in found.refused.items():
            if told.get(name) != why:
                told[name] = why
                note(f"{name} does not take part: {why}")
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {
            name: one.public_key.public_bytes(*form).decode() for name, one in found.members.items()
        }

    return members
