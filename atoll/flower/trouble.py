"""What a SuperNode's log says of a connection that it does not have, in words for the site."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["in_vain", "trouble"]

_RETRYING = re.compile(r"Connection attempt failed, retrying in ([0-9.]+) seconds")
_TAKES = 15.0
"""Seconds that an attempt may take, so that its line is still to come."""
_MEANT = {
    "Failed to activate SuperNode": "the server does not let this site in: its key is not signed "
    "there, was revoked, has expired, or was in use a minute ago",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not of the CA in ca.pem, not for the "
    "name in --connect, or out of time",
    "WRONG_VERSION_NUMBER": "what answers there does not speak TLS",
    "UNEXPECTED_EOF_WHILE_READING": "what answers there cut it off as it began: a proxy behind "
    "which there is no server yet, or none of this name",
}


def trouble(lines: Sequence[str]) -> str | None:
    """Why a SuperNode has ended; None where we have no words for it.

    lines: the end of its log.
    """
    for line in reversed(lines):
        for said, meant in _MEANT.items():
            if said in line:
                return meant
    return None


def in_vain(lines: Sequence[str], quiet: float) -> bool:
    """Whether a SuperNode that runs has nobody who answers.

    quiet: seconds since the last line of its log.
    """
    found = _RETRYING.search(lines[-1]) if lines else None
    return found is not None and quiet < float(found[1]) + _TAKES
