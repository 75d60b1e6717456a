"""manifest.json: what a federation was, signed by its server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from atoll.certs import load_certificate, load_key
from atoll.egress.manifest import Participant, manifest, verify_manifest, write_manifest
from atoll.egress.seal import fingerprint
from atoll.errors import AtollError
from atoll.experiment.terms import Agreed

__all__ = ["MANIFEST", "sign_manifest"]

MANIFEST = "manifest.json"


def sign_manifest(
    run: Path, certs: Path, name: str, agreed: Agreed, rounds: Mapping[str, tuple[int, int]]
) -> None:
    """Write the manifest of a run, with the participants that an earlier one had already.

    rounds: the first and the last in which each client answered this process.
    """
    path, server = run / MANIFEST, certs / "server.pem"
    whole = {**_before(path, server)}
    for client, (first, last) in rounds.items():
        whole[client] = (min(first, whole.get(client, (first, last))[0]), last)
    labels = None if agreed.labels is None else json.dumps(agreed.labels)
    facts = manifest(
        name,
        (run / "experiment.yaml").read_text(encoding="utf-8"),
        base=agreed.base,
        labels=None if labels is None else hashlib.sha256(labels.encode()).hexdigest(),
        participants=[
            Participant(client, _certificate(certs, client), first, last)
            for client, (first, last) in sorted(whole.items())
        ],
    )
    write_manifest(path, facts, load_key(certs / "server.key"))


def _before(path: Path, server: Path) -> dict[str, tuple[int, int]]:
    """Participants of the manifest that stands there, if it is ours."""
    if not path.is_file():
        return {}
    try:
        facts = verify_manifest(path, load_certificate(server))
        return {one["name"]: (one["first_round"], one["last_round"])
                for one in facts["participants"]}  # fmt: skip
    except (AtollError, KeyError, TypeError):
        return {}


def _certificate(certs: Path, client: str) -> str:
    """The certificate by which a client is known; nothing where it has gone meanwhile."""
    try:
        return fingerprint(load_certificate(certs / "clients" / f"{client}.pem"))
    except AtollError:
        return ""
