"""What releases of every kind come to."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.accounting.distributed import guaranteed
from atoll.accounting.epsilon import Spent, spent
from atoll.accounting.events import Release
from atoll.accounting.shares import Shared

__all__ = ["Event", "altogether"]

Event = Release | Shared


def altogether(events: Iterable[Event], delta: float) -> Spent:
    """The ε of noise that servers added and of noise that clients added.

    Of both together by basic composition, each at half of δ (Dwork, Roth, The Algorithmic
    Foundations of Differential Privacy, 2014, Theorem 3.16).
    """
    events = list(events)
    releases = [one for one in events if isinstance(one, Release)]
    own = [one for one in events if isinstance(one, Shared)]
    if not own:
        return spent(releases, delta)
    share = delta / 2 if releases else delta
    before, found = spent(releases, share).epsilon, guaranteed(own, share)
    alone = all(one.mechanism == "gaussian" for one in own)
    return Spent(
        before + found.server,
        delta,
        "replace-one" if alone and not releases else "zero-out",
        "closed form" if alone and not releases else "RDP",
        before + found.readers,
    )
