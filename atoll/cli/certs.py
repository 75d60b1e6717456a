"""`atoll certs`: who takes part in a federation between machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atoll.cli.certs_text import document, show_folder
from atoll.cli.output import Format, FormatOption, emit, note

__all__ = ["certs", "init", "renew", "request", "revoke", "show", "sign"]

certs = typer.Typer(
    help="Make, sign and revoke certificates of a server and its clients.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _option(name: str, about: str, metavar: str = "DIR") -> Any:
    return typer.Option(name, metavar=metavar, show_default=False, help=about)


NAMES = "NAME,..."
CaOption = Annotated[Path, _option("--ca", "Folder with ca.pem and ca.key.")]
ServerOption = Annotated[Path, _option("--server", "Folder of the server, with clients/.")]
DaysOption = Annotated[
    int | None,
    typer.Option("--days", min=1, max=3650, show_default=False, help="For how long; default 365."),
]


@certs.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", hidden=True)],
    server: Annotated[
        list[str],
        _option("--server", "Host names or IP addresses under which sites reach it.", NAMES),
    ],
    clients: Annotated[
        list[str] | None,
        _option("--clients", "Sites to make keys for; others use `atoll certs request`.", NAMES),
    ] = None,
    days: DaysOption = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Make a federation: its CA, its server, and keys of clients for a trial.

    DIR/ca signs who takes part: keep it apart from the server. DIR/server is for the server, and
    DIR/NAME for the site of this name. Nothing is overwritten.
    """
    from atoll.certs.begin import begin
    from atoll.certs.names import client_names, server_names

    hosts, sites = server_names(server, option="--server"), client_names(clients or [])
    begin(folder, hosts, sites, days)
    made = ["ca", "server", *sites]
    if output_format is Format.json:
        emit({"path": str(folder), "server": hosts, "clients": sites, **document(folder)})
        return
    about = {"ca": "signs who takes part; keep it apart from the server", "server": "the server's"}
    for name in made:
        typer.echo(f"{folder / name}  {about.get(name, f'for {name} alone')}")
    if sites:
        note("For more than a trial a key is born at its site: `atoll certs request`.")


@certs.command("request")
def request(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    out: Annotated[Path | None, _option("--out", "Folder to make; default NAME.")] = None,
    output_format: FormatOption = Format.text,
) -> None:
    """At a site: make its key, and the request that the operator of the server signs.

    NAME is what the site is called in the federation. DIR/client.key never leaves the site;
    DIR/request.pem goes to the operator.
    """
    from atoll.certs.begin import ask
    from atoll.certs.names import check_name

    check_name(name)
    folder = out or Path(name)
    key = ask(name, folder)
    if output_format is Format.json:
        emit({"path": str(folder), "name": name, "key": key})
        return
    typer.echo(f"Send {folder / 'request.pem'} to the operator of the server, and nothing else.")
    typer.echo(f"Read these digits to them by telephone: {key}")
    typer.echo(f"What comes back, client.pem and ca.pem, belongs into {folder}.")


@certs.command("sign")
def sign(
    request: Annotated[Path, typer.Argument(metavar="REQUEST", hidden=True)],
    ca: CaOption,
    server: ServerOption,
    out: Annotated[
        Path | None,
        _option("--out", "Folder for what goes back to the site; default: that of REQUEST."),
    ] = None,
    days: DaysOption = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Replace the certificate of a site that takes part.")
    ] = False,
    output_format: FormatOption = Format.text,
) -> None:
    """At the server: let a site take part.

    REQUEST is the request.pem that it sent. The site counts at once, also in a federation that
    runs. client.pem and ca.pem are written beside the request, to be sent back.
    """
    from atoll.certs.admission import admit
    from atoll.certs.keys import fingerprint
    from atoll.certs.pem import moment

    folder = out or request.parent
    site = admit(request, ca=ca, server=server, out=folder, days=days, renew=renew)
    key = fingerprint(site.public_key)
    if output_format is Format.json:
        back = [str(folder / "client.pem"), str(folder / "ca.pem")]
        emit({"name": site.name, "expires": site.expires.isoformat(), "key": key, "files": back})
        return
    typer.echo(f"{site.name} takes part until {moment(site.expires)}, with the key {key}")
    typer.echo(f"Send {folder / 'client.pem'} and {folder / 'ca.pem'} back to it.")


@certs.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    server: ServerOption,
    output_format: FormatOption = Format.text,
) -> None:
    """At the server: put a site's key out, at once, also while a federation runs.

    NAME is the site's. With a new key it may ask again.
    """
    from atoll.certs.admission import revoke as put_out

    changed = put_out(name, server)
    if output_format is Format.json:
        emit({"name": name, "server": str(server), "changed": changed})
        return
    what = "is revoked and takes part no longer" if changed else "was revoked before"
    typer.echo(f"The key of {name} {what}.")


@certs.command("renew")
def renew(
    server: ServerOption,
    ca: CaOption,
    names: Annotated[
        list[str] | None,
        _option("--names", "Host names or IP addresses in the place of those that it has.", NAMES),
    ] = None,
    days: DaysOption = None,
    output_format: FormatOption = Format.text,
) -> None:
    """At the server: sign its certificate anew, before it expires or for other host names.

    The server's key stays. A site's certificate is renewed with `atoll certs sign --renew`.
    """
    from atoll.certs.admission import renew_server
    from atoll.certs.names import server_names
    from atoll.certs.pem import moment

    hosts = server_names(names, option="--names") if names else []
    until = renew_server(server, ca=ca, names=hosts, days=days)
    if output_format is Format.json:
        emit({"server": str(server), **document(server)})
        return
    typer.echo(f"{server / 'server.pem'} counts until {moment(until)}.")
    typer.echo("A server that runs shows it after its next start.")


@certs.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="DIR|REQUEST", hidden=True)],
    output_format: FormatOption = Format.text,
) -> None:
    """Show who is who, until when, and who is refused and why.

    DIR is any folder that `atoll certs` made; REQUEST a request.pem, to be looked at before it is
    signed.
    """
    if output_format is Format.json:
        emit({"path": str(path), **document(path)})
        return
    show_folder(path)
