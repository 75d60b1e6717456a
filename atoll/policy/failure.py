"""What of an error may leave: its text may quote a row."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from atoll.errors import AtollError, DataError, PayloadError
from atoll.policy.schema import Policy

if TYPE_CHECKING:
    # Reading a policy does not wait for torch.
    from atoll.core import Failure

__all__ = ["told", "told_error"]

_OWN = frozenset(
    {"certificate", "composition", "config", "diverged", "egress", "lost", "model", "payload",
     "policy", "quorum", "run", "worker"}
)  # fmt: skip
"""Kinds whose words are Atoll's own, about files, settings and tensors; those of `data` quote rows,
and `error` is `Type: text (file.py:line)` of any code."""
_RAISED = re.compile(r"([^\W\d]\w*):.*?(?: \(([\w.-]+\.py:[0-9]+)\))?", re.DOTALL)
_STAYS = "its text stays at the site, in its own log"


def told(policy: Policy, failure: Failure) -> Failure:
    """The failure; where its text stays, with the error's type and its line of code."""
    if policy.error_texts or failure.kind in _OWN:
        return failure
    found = _RAISED.fullmatch(failure.message) if failure.kind == "error" else None
    what = "an error" if found is None else found[1]
    where = f" at {found[2]}" if found and found[2] else ""
    return replace(failure, message=f"{what}{where}; {_STAYS}")


def told_error(policy: Policy, error: Exception) -> AtollError:
    """The same of an exception that is all there is to an answer."""
    if isinstance(error, AtollError) and (policy.error_texts or not isinstance(error, DataError)):
        return error
    if isinstance(error, DataError):
        return DataError(f"the site's rows cannot be used; {_STAYS}")
    name = type(error).__name__
    return PayloadError(f"{name}: {error}" if policy.error_texts else f"{name}; {_STAYS}")
