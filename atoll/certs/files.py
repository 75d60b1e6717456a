"""The folders that a server and a client are started with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from atoll.certs.keys import load_key
from atoll.certs.names import name_fault
from atoll.certs.pem import common_name, expiry, issued, load_certificate, out_of_time
from atoll.certs.roster import admitted
from atoll.errors import CertificateError

__all__ = ["ClientFiles", "ServerFiles", "client_files", "server_files"]


@dataclass(frozen=True)
class ServerFiles:
    """What a server shows, signs with, and knows its clients by."""

    ca: Path
    certificate: Path
    key: Path
    folder: Path


@dataclass(frozen=True)
class ClientFiles:
    """What a site trusts, signs with, and is known by."""

    ca: Path
    key: Path
    certificate: Path
    name: str
    expires: datetime


def server_files(folder: Path) -> ServerFiles:
    """The files of a server, which are there, belong together and are in time.

    Raises:
        CertificateError: with what is wrong and what to type.
    """
    if not (folder / "server.pem").is_file() and (folder / "server" / "server.pem").is_file():
        raise CertificateError(
            f"{folder} is a whole federation; a server is started with {folder / 'server'}"
        )
    found = ServerFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key", folder)
    make = "`atoll certs init DIR --server NAME` makes the folder of a server, DIR/server"
    _are_there([found.ca, found.certificate, found.key], make)
    certificate, ca = _pair(found.certificate, found.key, found.ca)
    if why := out_of_time(certificate, ca, datetime.now(UTC)):
        raise CertificateError(
            f"{found.certificate} is {why}; `atoll certs renew --server {folder} --ca CA` signs it "
            "anew"
        )
    admitted(folder)
    return found


def client_files(folder: Path) -> ClientFiles:
    """The files of a site, which are there, belong together and are in time.

    Raises:
        CertificateError: with what is wrong and what to type.
    """
    certificate, key, ca = folder / "client.pem", folder / "client.key", folder / "ca.pem"
    if not key.exists() and (folder / "server" / "server.pem").is_file():
        raise CertificateError(
            f"{folder} is a whole federation; a client is started with the folder of its name there"
        )
    again = f"send {folder / 'request.pem'} to the operator of the server, who signs it"
    make = (
        f"{again}; client.pem and ca.pem that come back belong into {folder}"
        if key.is_file()
        else "`atoll certs request NAME` makes the folder of a site"
    )
    _are_there([key, certificate, ca], make)
    loaded, signer = _pair(certificate, key, ca)
    name = common_name(loaded.subject)
    if fault := name_fault(name):
        raise CertificateError(f"{certificate} is of {name!r}, which {fault}")
    if why := out_of_time(loaded, signer, datetime.now(UTC)):
        raise CertificateError(
            f"{certificate} of {name} is {why}; {again} with `atoll certs sign --renew`"
        )
    return ClientFiles(ca, key, certificate, name, expiry(loaded, signer))


def _are_there(paths: list[Path], make: str) -> None:
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        folder = paths[0].parent
        what = f"has no {', '.join(missing)}" if folder.is_dir() else "is no folder"
        raise CertificateError(f"{folder} {what}; {make}")


def _pair(certificate: Path, key: Path, ca: Path) -> tuple[x509.Certificate, x509.Certificate]:
    """A certificate of this key and the CA that signed it."""
    loaded, signer = load_certificate(certificate), load_certificate(ca)
    if loaded.public_key() != load_key(key).public_key():
        raise CertificateError(
            f"{key} is not the key of {certificate}; bring the two files together that belong "
            "together"
        )
    if not issued(loaded, signer):
        raise CertificateError(
            f"{certificate} was not signed by the CA in {ca}; take both files from the same "
            "operator"
        )
    return loaded, signer
