"""Reading certificates, and saying what is wrong with one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from atoll.errors import CertificateError

__all__ = [
    "common_name",
    "expiry",
    "issued",
    "load_certificate",
    "moment",
    "out_of_time",
    "read_pem",
]

LIMIT = 16 * 1024
"""Bytes of a file: a key or certificate of ours has about 1,000."""


def read_pem(path: Path) -> bytes:
    """A small file.

    Raises:
        CertificateError: when it is not there, may not be read, or is something else.
    """
    try:
        # Nobody waits for the other end of a pipe.
        if path.exists() and not path.is_file():
            raise CertificateError(f"{path} is no file")
        with path.open("rb") as stream:
            content = stream.read(LIMIT + 1)
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise CertificateError(f"{path} cannot be read: {why}") from error
    if len(content) > LIMIT:
        raise CertificateError(f"{path} is larger than any key or certificate")
    return content


def load_certificate(path: Path) -> x509.Certificate:
    """The certificate in a file.

    Raises:
        CertificateError: when there is none.
    """
    content = read_pem(path)
    try:
        return x509.load_pem_x509_certificate(content)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError(
            f"{path} holds no certificate that can be read; copy it anew from where it came"
        ) from error


def common_name(subject: x509.Name) -> str:
    """Whose it is; empty where it says no name, or several."""
    names = [part.value for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return names[0] if len(names) == 1 and isinstance(names[0], str) else ""


def issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether a certificate names this CA and carries its signature."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def out_of_time(certificate: x509.Certificate, ca: x509.Certificate, now: datetime) -> str | None:
    """Why a certificate does not count at this moment, if there is a reason."""
    until, since = expiry(certificate, ca), certificate.not_valid_before_utc
    if now > until:
        return f"expired since {moment(until)}"
    return f"not valid before {moment(since)}" if now < since else None


def expiry(certificate: x509.Certificate, ca: x509.Certificate) -> datetime:
    """Until when a certificate counts: no longer than the CA that signed it."""
    return min(certificate.not_valid_after_utc, ca.not_valid_after_utc)


def moment(time: datetime) -> str:
    """A time as people read it."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
