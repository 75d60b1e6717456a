"""`atoll egress`: what has left this site, and whether the record of it is whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit
from atoll.errors import CertificateError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from atoll.egress.verify import Verified

__all__ = ["egress", "manifest", "show", "verify"]

egress = typer.Typer(
    help="Look at the record of what has left this site.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
CertificateOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--certificate",
        metavar="PEM",
        help="The site's client.pem, whose key must have signed; once for each, where it was "
        "renewed.",
    ),
]


@egress.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", hidden=True)],
    certificate: CertificateOption = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Check every line of a record, and say what it comes to, run by run.

    FOLDER is the one that `atoll client` writes; FILE is one of its files, checked as far as the
    files beside it tell where it ends. The first line that was edited, inserted, removed, moved or
    signed by another key ends it with exit code 6, and so do lines that are missing at the end.
    """
    from atoll.egress.verify import verify as verified

    found = verified(path, *_certificates(certificate))
    if output_format is Format.json:
        emit(_as_json(path, found, checked=bool(certificate)))
        return
    from atoll.cli.egress_text import show_verified

    show_verified(path, found, checked=bool(certificate))


@egress.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", hidden=True)],
    run: Annotated[str | None, typer.Option(help="Only what left for this run.")] = None,
    certificate: CertificateOption = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Print what has left, a line for each message; each is checked as `verify` does.

    JSON also has the names, shapes, dtypes and norms of all tensors.
    """
    lines = list(_sent(path, run, _certificates(certificate)))
    if output_format is Format.json:
        emit(lines)
        return
    from atoll.cli.egress_text import show_lines

    show_lines(lines)


@egress.command("manifest")
def manifest(
    path: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    certificate: Annotated[
        Path,
        typer.Option(metavar="PEM", help="The server's server.pem, whose key must have signed."),
    ],
    output_format: FormatOption = Format.text,
) -> None:
    """Check what a server signed of a run, and print it: code, experiment, and who took part."""
    from atoll.egress.manifest import verify_manifest

    (signer,) = _certificates([certificate])
    facts = verify_manifest(path, signer)
    if output_format is Format.json:
        emit(facts)
        return
    from atoll.cli.egress_text import show_manifest

    show_manifest(path, facts)


def _sent(
    path: Path, run: str | None, certificates: Sequence[Certificate]
) -> Iterator[dict[str, Any]]:
    from atoll.egress.lines import Sent
    from atoll.egress.read import read

    for line in read(path, certificates):
        if isinstance(line, Sent) and run in (None, line.run):
            yield line.model_dump(mode="json", exclude={"kind", "previous"})


def _certificates(paths: Sequence[Path] | None) -> list[Certificate]:
    from atoll.certs.pem import load_certificate
    from atoll.egress.seal import public_key

    found = [load_certificate(path) for path in paths or ()]
    for path, certificate in zip(paths or (), found, strict=True):
        try:
            public_key(certificate)
        except ValueError:
            raise CertificateError(
                f"{path} is no certificate of Atoll's: its key is of another kind; name a "
                "client.pem, or a server.pem for a manifest"
            ) from None
    return found


def _as_json(path: Path, found: Verified, *, checked: bool) -> dict[str, Any]:
    return {
        "path": str(path),
        "site": found.site,
        "files": found.files,
        "lines": found.lines,
        "last_number": found.number,
        "first": found.first,
        "last": found.last,
        "messages": found.messages,
        "bytes": found.bytes,
        "cuts": found.cuts,
        "unfinished_bytes": found.unfinished,
        "certificates": found.certificates,
        "certificates_given": checked,
        "runs": {
            name: {
                "messages": run.messages,
                "bytes": run.bytes,
                "rounds": len(run.rounds),
                "largest_norm": run.norm,
                "largest_tensor": run.tensor,
            }
            for name, run in found.runs.items()
        },
    }
