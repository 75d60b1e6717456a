"""What goes with encrypted sums in the section about privacy, and what with masks."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.config.checks import Problem
from atoll.config.privacy import Privacy

__all__ = ["check_encrypted"]


def check_encrypted(privacy: Privacy) -> Iterator[Problem]:
    """Values that the one or the other does not read."""
    if privacy.secure_aggregation != "ckks":
        if privacy.secure_aggregation and privacy.key_holder is not None:
            yield Problem(
                "privacy.key_holder",
                f"privacy.key_holder is {privacy.key_holder}, but under masks nobody holds a key; "
                "remove it, or set privacy.secure_aggregation to ckks",
            )
        return
    if privacy.mechanism == "distributed":
        yield Problem(
            "privacy.mechanism",
            "privacy.mechanism is distributed, whose noise is whole numbers under masks, and "
            "privacy.secure_aggregation is ckks; set that to true, or mechanism to gaussian",
        )
    for key in ("corrupt", "dropping"):
        if vars(privacy)[key] != Privacy.model_fields[key].default:
            yield Problem(
                f"privacy.{key}",
                f"privacy.{key} is set, but privacy.secure_aggregation is ckks, which has no "
                f"neighbours that share secrets; remove privacy.{key}",
            )
