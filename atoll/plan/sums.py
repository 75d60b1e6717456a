"""What the secure sums of a run are, for people."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.experiment.setup import Setup
from atoll.protection import Spread
from atoll.protection.smallest import plain_terms
from atoll.secagg.degree import degree, spare

__all__ = ["sums_told"]


def sums_told(setup: Setup) -> Iterator[str]:
    """Of how many clients they are, and who may stop; nothing where updates are seen."""
    privacy, training = setup.experiment.privacy, setup.program.algorithms.get("train")
    if not privacy.secure_aggregation or training is None:
        return
    if privacy.secure_aggregation == "ckks":
        least = max(privacy.min_survivors, setup.experiment.federation.min_clients)
        yield f"encrypted sums: none of fewer than {least} clients is decrypted"
        return
    spread = setup.protection if isinstance(setup.protection, Spread) else None
    terms = plain_terms(privacy) if spread is None else spread.terms
    group = max((stage.group for stage in training.stages), default=0)
    clients = group or setup.clients_per_round
    found = degree(clients, terms)
    of = f"groups of {group} clients or more" if group else f"{clients} clients"
    yield (
        f"secure sums of {of}: each masks with {found.neighbours} others, and "
        f"{max(terms.floor, found.signers)} must stay to the end, so that "
        f"{spare(clients, terms)} may stop"
    )
