"""Names of sites and of servers, checked before they become files and certificates."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Sequence

from atoll.errors import ConfigError

__all__ = ["check_name", "client_names", "name_fault", "server_names"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_TAKEN = ("ca", "server")


def name_fault(name: str) -> str | None:
    """What keeps a name from being a site's, if anything does.

    It becomes the name of a file and of a folder, at sites that run other systems too.
    """
    if name.lower() in _TAKEN:
        return f"is what the federation's own folder {name.lower()}/ is called; choose another"
    if not _NAME.fullmatch(name):
        return (
            "is no name for a site; use a to z, A to Z, 0 to 9, `-`, `_` and `.`, at most 64 of "
            "them, the first a letter, a digit or `_`"
        )
    return None


def check_name(name: str) -> None:
    """Refuse what cannot be a site's name.

    Raises:
        ConfigError: with what a name may be.
    """
    if fault := name_fault(name):
        raise ConfigError(f"{name!r} {fault}")


def client_names(given: Sequence[str]) -> list[str]:
    """The names in `a,b` and `c`, each checked.

    Raises:
        ConfigError: for one that cannot be a site's, or that is there twice.
    """
    names = _listed(given)
    for name in names:
        check_name(name)
    # Some file systems know no capitals, and neither do people on the telephone.
    twice = [name for name, times in Counter(map(str.lower, names)).items() if times > 1]
    if twice:
        raise ConfigError(f"--clients has {twice[0]!r} twice; give each site a name of its own")
    return names


def server_names(given: Sequence[str], *, option: str) -> list[str]:
    """The host names and IP addresses in `a,b` and `c`, each checked and once.

    Raises:
        ConfigError: for what is neither, or when there is none.
    """
    names = _listed(given)
    for name in names:
        if not (_is_address(name) or _is_host(name)):
            raise ConfigError(
                f"{option} has {name!r}, which is no host name or IP address; give what sites "
                "connect to, without port, scheme or brackets (others than a to z in their "
                "`xn--` form), as in fl.example.org,10.0.0.5"
            )
    if not names:
        raise ConfigError(f"{option} names no server; give the host name that sites connect to")
    return list(dict.fromkeys(names))


def _listed(given: Sequence[str]) -> list[str]:
    return [word.strip() for words in given if words.strip() for word in words.split(",")]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    # A zone (fe80::1%eth0) means something on one machine only.
    return "%" not in name


def _is_host(name: str) -> bool:
    labels = name.split(".")
    # 10.0.0.300 is an address with a slip, not a name.
    return len(name) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
