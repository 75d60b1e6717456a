"""Options of the commands that make up a federation."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from atoll.errors import ConfigError

__all__ = [
    "CertsOption",
    "ClientsOption",
    "ConnectOption",
    "DataOption",
    "InsecureOption",
    "ListenOption",
    "ModelOption",
    "NameOption",
    "PolicyOption",
    "SetOption",
    "StateOption",
    "UiOption",
    "address",
    "certificates",
    "check_free",
    "with_port",
]

LOOPBACK = ("127.0.0.1", "localhost", "::1")

CertsOption = Annotated[
    Path | None,
    typer.Option("--certs", show_default=False, help="The folder that `atoll certs` makes."),
]
ClientsOption = Annotated[
    str, typer.Option("--clients", help="With --insecure: the names of those who take part.")
]
ConnectOption = Annotated[
    str, typer.Option("--connect", metavar="HOST:PORT", help="Where the server listens.")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", show_default=False, help="A folder with train.jsonl, or a file."),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Without TLS and keys: for trials on this machine.")
]
ListenOption = Annotated[
    str, typer.Option("--listen", metavar="HOST:PORT", help="Where sites connect.")
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", show_default=False, help="The base model's folder at this site."),
]
NameOption = Annotated[str, typer.Option("--name", help="With --insecure: who this site is.")]
PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", show_default=False, help="What this site takes part in (YAML)."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value of this site's own machine."),
]
StateOption = Annotated[
    Path | None,
    typer.Option("--state", show_default=False, help="What this site goes on from; default: "
                 "state/ in the folder of --certs."),
]  # fmt: skip

UiOption = Annotated[
    int | None,
    typer.Option("--ui", metavar="[PORT]", min=0, max=2**16 - 1, show_default=False,
                 help="Serve a page on this machine; its address is printed."),
]  # fmt: skip


def with_port(arguments: Sequence[str]) -> list[str]:
    """`--ui` as `--ui 0`, any free port, where no port follows."""
    found: list[str] = []
    for word, after in zip(arguments, [*arguments, ""][1:], strict=True):
        found += ["--ui", "0"] if word == "--ui" and not after.isdigit() else [word]
    return found


def address(option: str, text: str, *, insecure: bool) -> str:
    """A host and port as it was typed, if it may be used.

    Raises:
        ConfigError: for another form, or another machine without TLS.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{option} is '{text}'; write HOST:PORT, as fl.example.org:9092")
    if insecure and host.strip("[]") not in LOOPBACK:
        raise ConfigError(
            f"--insecure stays on this machine, and {option} is {text}; use 127.0.0.1:{port}, or "
            "certificates (--certs)"
        )
    return text


def certificates(certs: Path | None, *, insecure: bool, missing: str) -> Path | None:
    """The folder of certificates; None: without, on this machine alone.

    Raises:
        ConfigError: both are given, or neither.
    """
    if insecure and certs is not None:
        raise ConfigError("--insecure goes without certificates; leave it or --certs out")
    if not insecure and certs is None:
        raise ConfigError(missing)
    return certs


def check_free(option: str, listen: str) -> None:
    """Refuse an address on which nobody can listen now.

    Raises:
        ConfigError: a port in use, an address of another machine, a port below 1024.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise ConfigError(
                f"{option} is {listen}, where nobody can listen: {error.strerror}; give an address "
                "of this machine and a port that is free"
            ) from None
