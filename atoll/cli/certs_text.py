"""A folder of certificates, for programs and for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from atoll.cli.output import note

__all__ = ["document", "show_folder"]


def document(path: Path) -> dict[str, Any]:
    """All that is known of a folder or a request."""
    from atoll.certs.show import open_keys, rows

    who = [
        {
            "name": row.name,
            "kind": row.kind,
            "state": row.state,
            "expires": None if row.expires is None else row.expires.isoformat(),
            "key": row.key,
            "names": list(row.names),
        }
        for row in rows(path)
    ]
    return {"who": who, "open_keys": [str(key) for key in open_keys(path)]}


def show_folder(path: Path) -> None:
    """A line for everyone, and a note for each key that others may read."""
    from atoll.certs.pem import moment
    from atoll.certs.show import open_keys, rows

    found = rows(path)
    name, kind = max(len(row.name) for row in found), max(len(row.kind) for row in found)
    for row in found:
        until = "" if row.expires is None else f"until {moment(row.expires)}"
        more = f"  {', '.join(row.names)}" if row.names else ""
        typer.echo(f"{row.name:{name}}  {row.kind:{kind}}  {until:26}  {row.state}{more}")
        # What the operator compares before signing.
        if row.kind == "request":
            typer.echo(f"key {row.key}")
    for key in open_keys(path):
        note(f"{key} can be read by others than its owner; close it with: chmod 600 {key}")
