"""Where keys are born: the folders of a federation, and of a site that asks to take part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from atoll.certs.authority import client_certificate, new_authority, server_certificate
from atoll.certs.keys import fingerprint, key_pem, key_ssh, new_key
from atoll.certs.requests import new_request
from atoll.certs.roster import REVOKED
from atoll.disk.files import explained
from atoll.disk.folder import new_folder
from atoll.errors import ConfigError

__all__ = ["ask", "begin"]


def begin(folder: Path, servers: Sequence[str], clients: Sequence[str], days: int | None) -> None:
    """Make a federation: its CA, its server, and a key pair for each client.

    Raises:
        ConfigError: when the folder is taken.
        RunError: when it cannot be written.
    """
    with _new(folder) as place:
        authority = new_authority()
        ca = authority.certificate.public_bytes(Encoding.PEM)
        _fill(place / "ca", {"ca.pem": ca, "ca.key": key_pem(authority.key)})
        key = new_key()
        shown = server_certificate(authority, key.public_key(), servers, days)
        files = {"ca.pem": ca, "server.pem": shown.public_bytes(Encoding.PEM)}
        files |= {"server.key": key_pem(key), "revoked.txt": REVOKED.encode()}
        _fill(place / "server", files)
        (place / "server" / "clients").mkdir()
        for name in clients:
            key = new_key()
            made = client_certificate(authority, key.public_key(), name, days)
            pem = made.public_bytes(Encoding.PEM)
            _fill(place / name, {"ca.pem": ca, "client.pem": pem, **_asking(key, name)})
            (place / "server" / "clients" / f"{name}.pem").write_bytes(pem)


def ask(name: str, folder: Path) -> str:
    """Make a site's key where it stays, and the request that goes to the operator.

    Returns:
        The fingerprint of the key.

    Raises:
        ConfigError: when the folder is taken.
        RunError: when it cannot be written.
    """
    key = new_key()
    with _new(folder) as place:
        _fill(place, _asking(key, name))
    return fingerprint(key.public_key())


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _asking(key: ec.EllipticCurvePrivateKey, name: str) -> dict[str, bytes]:
    request = new_request(key, name).public_bytes(Encoding.PEM)
    return {"client.key": key_ssh(key), "request.pem": request}


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder that only its owner reads, where there is none or an empty one."""
    place = folder.expanduser()
    with explained(folder):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ConfigError(
                f"{folder} is there already, and no key is ever overwritten; name a folder that "
                "is not there yet"
            )
    with new_folder(place.resolve(), private=True) as partial:
        yield partial
