"""Which models a federation may name at a site: a name may lead to any folder of its machine."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

from atoll.errors import PolicyError
from atoll.policy.schema import ANY, BUILTIN, HUB, Policy

__all__ = ["check_model"]


def check_model(policy: Policy, name: str) -> None:
    """Refuse a model that a federation names, where the site does not name its own.

    What is a folder here is one, whatever it looks like: patterns of folders are held against the
    place to which it leads.

    Raises:
        PolicyError: with what may be named.
    """
    if ANY in policy.models:
        return
    if name.startswith("builtin:"):
        word, where = BUILTIN, name
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or os.path.exists(name):
        word, where = None, os.path.realpath(os.path.expanduser(name))
    else:
        word, where = HUB, name
    if word in policy.models or any(fnmatchcase(where, one) for one in policy.models):
        return
    raise PolicyError(
        "models",
        f"model.name_or_path is {name}; this site takes {', '.join(policy.models)}, or what it "
        "names itself with --model",
    )
