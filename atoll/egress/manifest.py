"""What a run was, signed by the server: experiment, code, base, labels, and who took part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

import atoll
from atoll.disk.files import write_bytes
from atoll.egress.seal import SIGNATURE, parsed, public_key, sealed, sha256, signed_by
from atoll.errors import RunError

__all__ = ["Participant", "code_hash", "manifest", "verify_manifest", "write_manifest"]

KIND = "manifest"


@dataclass(frozen=True)
class Participant:
    """A client: the certificate that it was known by, its first round and its last."""

    name: str
    certificate_sha256: str
    first_round: int
    last_round: int


def manifest(
    run: str,
    experiment: str,
    *,
    base: str | None,
    labels: str | None,
    participants: Sequence[Participant],
) -> dict[str, Any]:
    """The facts of a run.

    experiment: the resolved file's text.   base, labels: fingerprints; None where there are none.
    """
    return {
        "run": run,
        "experiment_sha256": sha256(experiment.encode()),
        "experiment": experiment,
        "atoll": atoll.__version__,
        "code_sha256": code_hash(),
        "base": base,
        "labels": labels,
        "participants": [asdict(one) for one in participants],
    }


def code_hash() -> str:
    """SHA-256 over names and bytes of Atoll's own .py files, as they are installed here."""
    package = Path(atoll.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(
        package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()
    ):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}:{len(content)};".encode())
        digest.update(content)
    return digest.hexdigest()


def write_manifest(path: Path, facts: Mapping[str, Any], key: EllipticCurvePrivateKey) -> None:
    """Write facts as one line of JSON with a signature at its end; a file before is replaced.

    Raises:
        RunError: when it cannot be written.
    """
    write_bytes(path, sealed({"kind": KIND, **facts}, key))


def verify_manifest(path: Path, certificate: x509.Certificate) -> Mapping[str, Any]:
    """The facts, when the server's key has signed them.

    Raises:
        RunError: when the file cannot be read, was edited, or is signed by another key.
    """
    try:
        value = parsed(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; name a run's manifest") from error
    except ValueError as error:
        raise RunError(f"{path} has been edited, or is no manifest: {error}") from None
    if value.get("kind") != KIND or not signed_by(value, public_key(certificate)):
        raise RunError(
            f"{path} has been edited after it was signed, or another key has signed it than that "
            f"of the certificate of {certificate.subject.rfc4514_string()}"
        )
    return {name: item for name, item in value.items() if name not in ("kind", SIGNATURE)}
