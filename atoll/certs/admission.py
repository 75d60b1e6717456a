"""What the operator of a server decides: who takes part, and who does no longer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from atoll.certs.authority import (
    Authority,
    client_certificate,
    load_authority,
    server_certificate,
)
from atoll.certs.keys import fingerprint, is_ours, load_key
from atoll.certs.pem import common_name, expiry, load_certificate
from atoll.certs.requests import Asked, load_request
from atoll.certs.roster import Member, admitted, revocations
from atoll.disk.files import write_bytes, write_text
from atoll.disk.lock import alone
from atoll.errors import CertificateError, ConfigError
from atoll.words import listed

__all__ = ["admit", "names_of", "renew_server", "revoke"]


def admit(
    request: Path, *, ca: Path, server: Path, out: Path, days: int | None, renew: bool
) -> Member:
    """Sign a site's request and let it take part; `out` is where the site's copy goes.

    renew: replace the certificate of a site that takes part.

    Raises:
        CertificateError: for a request that is damaged, of a name or key that is taken, or of a
            revoked key.
    """
    asked = load_request(request)
    with _held(server):
        authority = _authority(ca, server)
        _is_free(server, asked, renew=renew)
        _is_place_for(out, asked.name, authority)
        made = client_certificate(authority, asked.key, asked.name, days)
        pem = made.public_bytes(Encoding.PEM)
        write_bytes(out / "ca.pem", authority.certificate.public_bytes(Encoding.PEM))
        write_bytes(out / "client.pem", pem)
        # Last: the site takes part from here on.
        write_bytes(_file_of(server, asked.name), pem)
    return Member(asked.name, asked.key, expiry(made, authority.certificate))


def revoke(name: str, server: Path) -> bool:
    """Put a site's key out; it counts at once, also while the federation runs.

    Returns:
        Whether it took part until now.

    Raises:
        ConfigError: when no site has this name.
    """
    with _held(server):
        known = admitted(server)
        here = sorted({*known.members, *known.refused})
        if name not in here:
            near = listed(get_close_matches(name, here) or here) or "nobody yet"
            raise ConfigError(f"no site {name!r} was admitted to {server}; there is {near}")
        mark, path = _mark(_file_of(server, name)), server / "revoked.txt"
        if mark in revocations(server):
            return False
        before = path.read_text(encoding="utf-8")
        gap = "" if before.endswith("\n") or not before else "\n"
        write_text(path, f"{before}{gap}{mark} {name} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n")
    return True


def renew_server(server: Path, *, ca: Path, names: Sequence[str], days: int | None) -> datetime:
    """Sign the server's certificate anew, over the same key; `names` replace those it has.

    Returns:
        Until when it counts.
    """
    path = server / "server.pem"
    with _held(server):
        authority = _authority(ca, server)
        key = load_key(server / "server.key").public_key()
        made = server_certificate(authority, key, names or names_of(load_certificate(path)), days)
        write_bytes(path, made.public_bytes(Encoding.PEM))
    return expiry(made, authority.certificate)


@contextmanager
def _held(server: Path) -> Iterator[None]:
    """A server's folder, in which nobody else signs or revokes meanwhile."""
    if not (server / "clients").is_dir():
        inside = server / "server"
        near = f"; did you mean {inside}?" if (inside / "clients").is_dir() else ""
        raise CertificateError(f"{server} is not the folder of a server: it has no clients/{near}")
    with alone(server, f"another `atoll certs` writes into {server}; run this one again"):
        yield


def _authority(ca: Path, server: Path) -> Authority:
    """The CA whose certificates this server accepts."""
    authority = load_authority(ca)
    if load_certificate(server / "ca.pem") != authority.certificate:
        raise CertificateError(f"{server} trusts another CA than that of {ca}; name its own")
    return authority


def _is_free(server: Path, asked: Asked, *, renew: bool) -> None:
    """Refuse a name or a key that is taken."""
    revoked, path = revocations(server), _file_of(server, asked.name)
    if when := revoked.get(fingerprint(asked.key)):
        raise CertificateError(
            f"this key of {asked.name} was revoked {when}; the site makes another one with "
            f"`atoll certs request {asked.name} --out DIR`"
        )
    if path.exists() and not renew and _mark(path) not in revoked:
        raise CertificateError(
            f"{asked.name} is admitted to {server} already; --renew puts this request's key in the "
            "place of its present one"
        )
    for member in admitted(server).members.values():
        if member.name == asked.name:
            continue
        if member.name.lower() == asked.name.lower():
            raise CertificateError(f"{asked.name} differs from {member.name} in capitals only")
        if member.public_key == asked.key:
            raise CertificateError(f"{asked.name} asks with the key of {member.name}")


def _is_place_for(out: Path, name: str, authority: Authority) -> None:
    """Refuse a folder that holds files of another site or federation."""
    client, ca = out / "client.pem", out / "ca.pem"
    other = common_name(load_certificate(client).subject) if client.exists() else name
    if other != name or (ca.exists() and load_certificate(ca) != authority.certificate):
        what = f"the certificate of {other}" if other != name else "the CA of another federation"
        raise ConfigError(f"{out} holds {what}; name another folder for that of {name} with --out")


def _file_of(server: Path, name: str) -> Path:
    return server / "clients" / f"{name}.pem"


def _mark(path: Path) -> str:
    """The fingerprint of an admitted key."""
    key = load_certificate(path).public_key()
    if not is_ours(key):
        raise CertificateError(f"{path} is no certificate of a client; take the file away")
    return fingerprint(key)


def names_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a server's certificate is for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return [*found.get_values_for_type(x509.DNSName), *addresses]
