"""An ε in words, with all that it depends on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from atoll.words import counted

__all__ = ["UNITS", "finite", "in_words", "stated", "summed"]

UNITS = {"client": "whole clients", "example": "single rows"}


def finite(epsilon: float | None) -> float | None:
    """An ε as it stands in a file: None where nothing bounds it."""
    return None if epsilon is None or math.isinf(epsilon) else epsilon


def in_words(epsilon: float | None) -> str:
    """An ε to four digits."""
    found = finite(epsilon)
    return "without bound" if found is None else f"{found:.4g}"


def stated(summary: Mapping[str, Any]) -> str | None:
    """What a run's summary promises; None where it promises nothing."""
    privacy, epsilon = summary.get("privacy"), summary.get("epsilon")
    if privacy is None:
        if epsilon is None:
            return None
        return f"Differential privacy: ε = {epsilon:g} at δ = {summary['delta']:g}."
    whom = UNITS[privacy["unit"]]
    if epsilon is None:
        return (
            f"No differential privacy of {whom}: privacy.noise_multiplier is "
            f"{privacy['noise_multiplier']:g}, so that nothing bounds what the model remembers."
        )
    said = f"Differential privacy of {whom}: ε = {epsilon:.4g} at δ = {summary['delta']:g}"
    return " ".join([f"{said}, {_meant(privacy)}", *_beside(privacy, epsilon)])


def summed(summary: Mapping[str, Any]) -> str | None:
    """What the server saw of updates, where it saw sums; None where it saw each."""
    sums = summary.get("secure_sums")
    if sums is None:
        return None
    if holder := sums.get("holder"):
        return (
            f"Secure aggregation: clients encrypted what they sent to a key that {holder} held, "
            f"and the server saw one sum a round, of {sums['least']} clients or more; {holder} and "
            "the server together could read each update, any other client and the server one."
        )
    if sums["group"] is None:
        return (
            f"Secure aggregation: the server saw one sum a round, of {sums['least']} clients or "
            "more, and no client's update."
        )
    return (
        f"Secure aggregation in groups: the server saw sums of groups of {sums['group']} clients "
        f"({sums['least']} or more of them answered), whose means a rule compared, and no client's "
        "update."
    )


def _meant(privacy: Mapping[str, Any]) -> str:
    """What an ε depends on."""
    if privacy["unit"] == "example":
        return _rows(privacy)
    if privacy["mechanism"] in ("distributed", "local"):
        return f"{_own(privacy)} {_cohorts(privacy['sampling'])}"
    return (
        f"{privacy['adjacency']} ({privacy['accountant']} accountant), over "
        f"{counted(privacy['releases'], 'release')}. {_mechanism(privacy)} "
        f"{_cohorts(privacy['sampling'])}"
    )


def _beside(privacy: Mapping[str, Any], epsilon: float) -> Iterator[str]:
    """What else the model depends on, and what else its data were used for."""
    alone, life = privacy.get("run_epsilon", epsilon), privacy.get("lifetime_epsilon", epsilon)
    if privacy.get("unknown_start"):
        yield (
            "The run starts from an adapter of which nothing is known: ε is of what was trained "
            "after it alone."
        )
    if alone != epsilon:
        yield (
            "ε counts the private runs from whose model this one starts; its own rounds come to "
            f"{alone:.4g}."
        )
    if life is None:
        yield "All runs of the ledger together are bounded by nothing: some had no noise."
    elif life != epsilon:
        yield f"All runs of the ledger together come to ε = {life:.4g}."


def _rows(privacy: Mapping[str, Any]) -> str:
    rate = privacy["sampling"]["rate"]
    return (
        f"of each client's by itself, {privacy['adjacency']} ({privacy['accountant']} "
        f"accountant), were it asked in every round. Each row's gradient is cut to "
        f"{privacy['clip']:g}; the client adds Gaussian noise of "
        f"{privacy['noise_multiplier']:g} times that to their sum, in each of its steps, whose "
        f"batch has a row by a secret coin: of {rate:.3g} at clients whose rows pay most."
    )


def _own(privacy: Mapping[str, Any]) -> str:
    """Noise that clients add, against whom."""
    alone, noise = privacy["mechanism"] == "local", privacy["noise"].replace("_", " ")
    what = (
        f"each adds {noise} noise of {privacy['noise_multiplier']:g} times that before it sends it"
        if alone
        else f"each adds a share of {noise} noise, which comes to {privacy['noise_multiplier']:g} "
        f"times that in a sum of {privacy['floor']} clients, {privacy['colluding']} of whom may "
        "tell theirs; no smaller sum is opened"
    )
    readers = privacy["readers_epsilon"]  # None where nothing was released
    beside = "" if readers is None else f"; ε = {readers:.4g} against whoever sees models only"
    return (
        f"{privacy['adjacency']} ({privacy['accountant']} accountant), over "
        f"{counted(privacy['releases'], 'release')}, against the server, which knows whom it "
        f"asks{beside}. Updates are cut to {privacy['clip']:g}; {what}."
    )


def _mechanism(privacy: Mapping[str, Any]) -> str:
    clip = privacy["clip"]
    bound = f"{clip:g}" if isinstance(clip, float | int) else (
        f"the {clip['quantile']:g} quantile of their norms"
    )  # fmt: skip
    sees = "their sum alone" if privacy.get("secure_aggregation") else "each of them"
    shared = ", which later rounds take back in part," if privacy["mechanism"] == "blt" else ""
    return (
        f"Updates are cut to {bound}; the server, which sees {sees}, adds Gaussian noise{shared} "
        f"of {privacy['noise_multiplier']:g} times that to their sum."
    )


def _cohorts(sampling: Mapping[str, Any]) -> str:
    if sampling["kind"] == "poisson":
        capped = "" if sampling["cap"] is None else f", {sampling['cap']} at most"
        return (
            f"Cohorts are secret: each client takes part by a coin of {sampling['rate']:.4g}"
            f"{capped}."
        )
    if sampling["kind"] == "fixed":
        return f"Cohorts are secret draws of {sampling['size']} among {sampling['population']}."
    if sampling["kind"] == "turns":
        return "Clients take turns, so that no chance hides who did."
    return "Every client takes part, so that no chance hides who did."
