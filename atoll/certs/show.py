"""Who is who in a folder of certificates, until when, and who does not count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from atoll.certs.admission import names_of
from atoll.certs.keys import fingerprint, is_ours
from atoll.certs.pem import common_name, expiry, issued, load_certificate, out_of_time
from atoll.certs.requests import load_request
from atoll.certs.roster import admitted
from atoll.errors import CertificateError

__all__ = ["Row", "open_keys", "rows"]

VALID = "valid"
_KEYS = ("ca.key", "server.key", "client.key")


@dataclass(frozen=True)
class Row:
    """One who has a key.

    state: `valid`, or why it does not count.
    key: the fingerprint of its public key; empty where the certificate cannot be read.
    names: under which host names and addresses a server is reached.
    """

    name: str
    kind: str
    state: str
    expires: datetime | None = None
    key: str = ""
    names: tuple[str, ...] = ()


def rows(path: Path) -> list[Row]:
    """Everyone in a federation's folder, a server's, a site's, a CA's, or a request.

    Raises:
        CertificateError: when it is none of these, or damaged.
    """
    if path.is_file():
        return [_request(path)]
    if (path / "server" / "server.pem").is_file():
        return list(_server(path / "server"))
    if (path / "server.pem").is_file():
        return list(_server(path))
    if (path / "client.pem").is_file():
        ca = load_certificate(path / "ca.pem")
        return [_ca(ca), _row(load_certificate(path / "client.pem"), ca, "client")]
    if (path / "request.pem").is_file():
        return [_request(path / "request.pem")]
    if (path / "ca.pem").is_file():
        return [_ca(load_certificate(path / "ca.pem"))]
    raise CertificateError(
        f"{path} holds no certificates; name a folder that `atoll certs` made, or a request"
    )


def open_keys(path: Path) -> list[Path]:
    """Keys in a folder, and in those inside, that others than their owner may read."""
    keys = [key for name in _KEYS for key in (*path.glob(name), *path.glob(f"*/{name}"))]
    return sorted(key for key in keys if key.stat().st_mode & 0o077)


def _server(folder: Path) -> Iterator[Row]:
    ca = load_certificate(folder / "ca.pem")
    yield _ca(ca)
    certificate = load_certificate(folder / "server.pem")
    yield _row(certificate, ca, "server", tuple(names_of(certificate)))
    known = admitted(folder)
    for name in sorted({*known.members, *known.refused}):
        member = known.members.get(name)
        if member is not None:
            mark = fingerprint(member.public_key)
            yield Row(name, "client", VALID, member.expires, mark)
        else:
            yield Row(name, "client", known.refused[name])


def _request(path: Path) -> Row:
    asked = load_request(path)
    return Row(asked.name, "request", "waits for the operator", key=fingerprint(asked.key))


def _ca(certificate: x509.Certificate) -> Row:
    return _row(certificate, certificate, "CA")


def _row(
    certificate: x509.Certificate, ca: x509.Certificate, kind: str, names: tuple[str, ...] = ()
) -> Row:
    key = certificate.public_key()
    why = None if issued(certificate, ca) else "not signed by this CA"
    return Row(
        common_name(certificate.subject),
        kind,
        why or out_of_time(certificate, ca, datetime.now(UTC)) or VALID,
        expiry(certificate, ca),
        fingerprint(key) if is_ours(key) else "",
        names,
    )
