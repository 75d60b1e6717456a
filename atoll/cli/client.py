"""`atoll client`: a site of a federation across machines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from atoll.cli.federation import (
    CertsOption,
    ConnectOption,
    DataOption,
    InsecureOption,
    ModelOption,
    NameOption,
    PolicyOption,
    SetOption,
    StateOption,
    UiOption,
    address,
    certificates,
)
from atoll.cli.output import Format, FormatOption, note
from atoll.cli.process import load_torch, stoppable
from atoll.errors import ConfigError, DataError, ModelError

if TYPE_CHECKING:
    from atoll.egress.record import Egress
    from atoll.flower.site import Connection

__all__ = ["client", "pause", "resume", "standing", "take_part"]

client = typer.Typer(
    help="Take part in a federation with the rows of this site, under the site's own policy.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


@client.callback(invoke_without_command=True)
def take_part(
    context: typer.Context,
    connect: ConnectOption = "",
    data: DataOption = None,
    certs: CertsOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    model: ModelOption = None,
    set_: SetOption = None,
    insecure: InsecureOption = False,
    name: NameOption = "",
    ui: UiOption = None,
) -> None:
    """Take part in a federation with the rows of this site, under the site's own policy.

    The site connects to the server, never the other way round, and again and again until it is
    stopped. Its base model, rows and rules stay loaded from one round to the next.
    """
    if context.invoked_subcommand is not None:
        return
    if not connect or data is None:
        raise ConfigError("--connect HOST:PORT and --data FOLDER are needed")
    name, connection = _connection(connect, certs, insecure, name)
    folder = state or (certs / "state" if certs is not None else Path(f"{name}-state"))
    overrides = [*(set_ or ()), *([f"model.name_or_path={model}"] if model else ())]
    _check_here(data, model, overrides)
    load_torch()
    from atoll.cli.site import serve
    from atoll.disk.files import make_folder
    from atoll.disk.lock import alone
    from atoll.experiment.joining import Place
    from atoll.policy import load_policy
    from atoll.status import SITE, Board

    place = Place(name, data, folder, load_policy(policy), tuple(overrides), certs)
    make_folder(folder)
    with (
        stoppable(),
        alone(folder, f"another `atoll client` runs in {folder}; `atoll stop {folder}` ends it"),
        _egress(folder, name, certs) as egress,
        Board(folder, SITE) as board,
    ):
        serve(place, connection, egress, board, page=ui)


def _check_here(data: Path, model: Path | None, overrides: Sequence[str]) -> None:
    """Refuse now what would be refused when a server asks, perhaps in days.

    Raises:
        AtollError: files that are not there, values without a key.
    """
    if not data.exists():
        raise DataError(f"there is no file or folder {data}; --data names the rows of this site")
    if model is not None and not model.exists():
        raise ModelError(f"there is no folder {model}; --model names this site's copy of the base")
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"--set {text}: write KEY=VALUE")


def _connection(
    connect: str, certs: Path | None, insecure: bool, name: str
) -> tuple[str, Connection]:
    """Who this site is, and how it reaches the server.

    Raises:
        AtollError: options that do not fit each other, certificates that cannot be used.
    """
    address("--connect", connect, insecure=insecure)
    if insecure and not name:
        raise ConfigError("--insecure needs --name: who this site is")
    folder = certificates(
        certs,
        insecure=insecure,
        missing="--certs is missing: the folder with this site's key and certificate; `atoll certs "
        "request NAME --out FOLDER` makes one",
    )
    from atoll.flower.site import Connection

    if folder is None:
        from atoll.certs.names import check_name

        check_name(name)
        return name, Connection(connect)
    from atoll.certs import client_files

    files = client_files(folder)
    return files.name, Connection(connect, files.ca, files.key)


def _egress(folder: Path, name: str, certs: Path | None) -> AbstractContextManager[Egress | None]:
    """The record of what leaves, signed with the site's key; none in a trial without one."""
    if certs is None:
        return nullcontext()
    from atoll.certs import client_files, load_key
    from atoll.egress.record import Egress

    files = client_files(certs)
    return Egress.open(
        folder / "egress", site=name, key=load_key(files.key),
        certificate_pem=files.certificate.read_bytes(),
    )  # fmt: skip


@client.command("pause")
def pause(state: StateOption = None, certs: CertsOption = None) -> None:
    """Have this site train nothing and answer nothing until it is resumed.

    What trains now is finished, and stays here. The connection stays, and the server is told why
    there is no answer.
    """
    from atoll.policy import pause as paused

    paused(_state(state, certs))
    note("paused; `atoll client resume` goes on")


@client.command("resume")
def resume(state: StateOption = None, certs: CertsOption = None) -> None:
    """Go on after a pause."""
    from atoll.policy import resume as resumed

    resumed(_state(state, certs))
    note("resumed")


@client.command("status")
def standing(
    state: StateOption = None,
    certs: CertsOption = None,
    output_format: FormatOption = Format.text,
) -> None:
    """What this site is doing, what it refused, and what has left it."""
    from atoll.cli.status import show

    show(_state(state, certs), output_format)


def _state(state: Path | None, certs: Path | None) -> Path:
    """The state folder that is meant.

    Raises:
        ConfigError: when none is, or there is none.
    """
    folder = state or (certs / "state" if certs is not None else None)
    if folder is None:
        raise ConfigError("name the site: --state FOLDER, or --certs FOLDER as it was started with")
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}; `atoll client` makes it at its first start"
        )
    return folder
