"""Values of the section about privacy that nothing reads: they would promise what is not done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from atoll.config.checks import Problem
from atoll.config.privacy import AdaptiveClip, Privacy
from atoll.config.words import shown

if TYPE_CHECKING:
    from atoll.config.federation import Federation

__all__ = ["check_unread"]

SUMS = ("min_survivors", "corrupt", "dropping", "max_examples", "key_holder")
"""Of sums that hide each client from the server."""
NO_SUMS = (
    "privacy.secure_aggregation is false, and sums alone read it; remove it, or set that to true"
)


def check_unread(privacy: Privacy, *, federation: Federation | None) -> Iterator[Problem]:
    """Values that another one keeps from being read."""
    if not privacy.on:
        yield from _check_idle(privacy)
        return
    if not privacy.secure_aggregation:
        yield from _unread(privacy, SUMS, NO_SUMS)
    elif privacy.unit == "client":
        why = "clients weigh the same where noise hides each"
        yield from _unread(privacy, ("max_examples",), f"{why}; remove it")
    if privacy.unit == "client":
        yield from _check_drawn(privacy, federation)


def _check_drawn(privacy: Privacy, federation: Federation | None) -> Iterator[Problem]:
    """Values about draws, where nothing is drawn."""
    if privacy.cap is not None and privacy.sampling != "poisson":
        yield Problem(
            "privacy.cap",
            f"privacy.cap is {privacy.cap}, but privacy.sampling is {privacy.sampling}, whose "
            "cohorts have no chance to be larger; remove privacy.cap",
        )
        return
    if federation is None or federation.clients_per_round or federation.fraction_train not in (
        None, 1,
    ):  # fmt: skip
        return
    why = "every round asks all clients (no federation.clients_per_round or fraction_train)"
    if privacy.sampling == "fixed":
        yield from _unread(privacy, ("sampling",), f"{why}; name a part, or set it to everyone")
    yield from _unread(privacy, ("cap",), f"{why}; remove it")


def _unread(privacy: Privacy, keys: Iterable[str], why: str) -> Iterator[Problem]:
    for key in keys:
        value = vars(privacy)[key]
        if value != Privacy.model_fields[key].default:
            said = value if isinstance(value, str) else shown(value)
            yield Problem(f"privacy.{key}", f"privacy.{key} is {said}, but {why}")


def _check_idle(privacy: Privacy) -> Iterator[Problem]:
    """Values of the section that nothing reads."""
    if not privacy.secure_aggregation:
        yield from _unread(privacy, SUMS, NO_SUMS)
    read = ("secure_aggregation", "clip") if privacy.secure_aggregation else ()
    fields = Privacy.model_fields.items()
    for key in [name for name, field in fields if vars(privacy)[name] != field.default]:
        if key not in (*read, *SUMS):
            yield Problem(
                f"privacy.{key}",
                f"privacy.{key} is set, but neither privacy.epsilon nor privacy.noise_multiplier "
                "is, so that it promises nothing; set one of them",
            )
    if privacy.secure_aggregation and isinstance(privacy.clip, AdaptiveClip):
        yield Problem(
            "privacy.clip",
            "privacy.clip is adaptive, which needs differential privacy; under secure_aggregation "
            "alone give a number, the largest value that is added up",
        )
