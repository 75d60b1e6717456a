"""What a run promises of privacy; what its findings are compared with where it promises none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atoll.accounting import Everyone, Poisson
from atoll.audit.findings import Claim
from atoll.config import Loaded
from atoll.config.privacy import Privacy
from atoll.errors import RunError
from atoll.protection import Protection
from atoll.protection.cohorts import Drawing

__all__ = ["DELTA", "EPSILON", "claim_of", "compared_with"]

EPSILON, DELTA = 8.0, 1e-5
"""What is compared with: the weakest privacy that is still called some."""
OWN = ("local", "distributed")
"""Mechanisms whose noise clients add."""


def claim_of(summary: Mapping[str, Any], *, earlier: int, where: Path) -> Claim | None:
    """The promise in a run's summary; None where there is none.

    earlier: releases of other runs among those that it counts; what is tried is of this run alone.

    What clients add holds against the server, which knows whom it asks: no chance helps there.

    Raises:
        RunError: for a summary that no run writes.
    """
    privacy = summary.get("privacy")
    if privacy is None:
        return None
    try:
        return Claim(
            epsilon=summary["epsilon"],
            delta=summary["delta"],
            unit=privacy["unit"],
            noise_multiplier=privacy["noise_multiplier"],
            rounds=privacy["releases"] - earlier,
            rate=1.0 if privacy["mechanism"] in OWN else _rate(privacy["sampling"]),
            mechanism=privacy["mechanism"],
        )
    except KeyError as error:
        raise RunError(
            f"{where} is not what a run writes: its promise has no {error.args[0]}; put back what "
            "the run wrote, or run the experiment again"
        ) from None


def compared_with(loaded: Loaded, population: int) -> Claim:
    """A promise that the run could have made: of its clients, in its rounds, by secret cohorts."""
    privacy = Privacy(epsilon=EPSILON, delta=DELTA)
    federation = loaded.experiment.federation
    rounds, asked = max(federation.num_rounds, 1), min(federation.cohort(population), population)
    sampling = Everyone() if asked == population else Poisson(rate=asked / population)
    drawing = Drawing(population, float(asked), sampling)
    noise = Protection(privacy, drawing, rounds).noise_multiplier
    return Claim(EPSILON, DELTA, "client", noise, rounds, asked / population)


def _rate(sampling: Mapping[str, Any]) -> float:
    if sampling["kind"] == "poisson":
        return float(sampling["rate"])
    if sampling["kind"] == "fixed":
        return float(sampling["size"] / sampling["population"])
    return 1.0
