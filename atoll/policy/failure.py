"""What of an error may leave: its text may quote a row."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from atoll.policy.schema import Policy

if TYPE_CHECKING:
    # Reading a policy does not wait for torch.
    from atoll.core import Failure

__all__ = ["told"]

_OWN = frozenset({"diverged", "lost", "payload", "policy", "worker"})
"""Kinds whose words are Atoll's own, and hold numbers and names of tensors at most."""
_RAISED = "error"
"""The kind of `TypeOfTheError: its text (file.py:line)`."""
_PLACE = re.compile(r" \(([\w.-]+\.py:[0-9]+)\)$")


def told(policy: Policy, failure: Failure) -> Failure:
    """The failure with its kind, the error's type and its line of code, where its text stays."""
    if policy.error_texts or failure.kind in _OWN:
        return failure
    name, place = failure.message.partition(":")[0], _PLACE.search(failure.message)
    what = name if failure.kind == _RAISED and name.isidentifier() else "an error"
    where = f" at {place[1]}" if place else ""
    return replace(failure, message=f"{what}{where}; its text stays at the site, in its own log")
