"""Sums that stay closed below a number of clients, beside a promise about each of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from atoll.accounting import Poisson
from atoll.accounting.quorum import quorum_delta
from atoll.config import Loaded
from atoll.config.privacy import Privacy
from atoll.errors import ConfigError
from atoll.protection.cohorts import Drawing, drawing_of
from atoll.protection.protection import QUORUM_OF_RUN, Protection
from atoll.protection.smallest import plain_terms
from atoll.secagg.degree import check_spare, spare

__all__ = ["check_quorum", "check_usual", "decides", "quorum_cost"]

Spare = Callable[[int], int]


def check_usual(loaded: Loaded, population: int) -> None:
    """Refuse sums that a usual cohort does not have, or not once as many stop as may.

    Raises:
        ConfigError: with what to change.
    """
    privacy, federation = loaded.experiment.privacy, loaded.experiment.federation
    if not privacy.secure_aggregation:
        return
    asked = min(federation.cohort(population), population)
    if privacy.on and privacy.unit == "client":
        asked = round(drawing_of(privacy, federation, population).expected)
    told = f"{loaded.where('privacy.secure_aggregation')}: a round asks {asked} clients"
    if privacy.secure_aggregation != "ckks":
        try:
            check_spare(asked, plain_terms(privacy))
        except ConfigError as error:
            raise ConfigError(f"{told}: {error}") from None
    elif asked < privacy.min_survivors:
        raise ConfigError(
            f"{told}, and no sum of fewer than {privacy.min_survivors} is decrypted "
            "(privacy.min_survivors): ask more clients, or lower it"
        )


def check_quorum(loaded: Loaded, protection: Protection) -> None:
    """Refuse secret cohorts that may be so small that one client decides if there is a sum.

    Raises:
        ConfigError: with the chance, and what to change.
    """
    settings, drawing, rounds = protection.settings, protection.drawing, protection.rounds
    least, place = settings.min_survivors, loaded.where("privacy.secure_aggregation")
    cost, room = quorum_cost(settings, drawing, rounds), QUORUM_OF_RUN * settings.delta
    if cost > room:
        raise ConfigError(
            f"{place}: fewer than privacy.min_survivors ({least}) clients have no sum, and secret "
            f"coins may draw so few that one client decides if there is one, which no noise hides: "
            f"in {rounds} rounds of {drawing.told()}, that adds {cost:.2g} to privacy.delta, which "
            f"has room for {room:.2g}; raise federation.fraction_train (or clients_per_round), "
            "lower privacy.min_survivors, set privacy.sampling to fixed or everyone, or "
            "privacy.mechanism to distributed"
        )


def quorum_cost(settings: Privacy, drawing: Drawing, rounds: int) -> float:
    """What it adds to δ that a sum stays closed below a number of clients."""
    sampling, most = drawing.sampling, drawing.most
    if not isinstance(sampling, Poisson):
        return 0.0
    gone, opened = _gone(settings), _spare(settings)
    flags = [decides(size, opened, gone) for size in range(most)]
    # In a full cohort one client takes the place of another, which may be one that stops.
    flags.append(0 <= opened(most) < gone(most))
    return quorum_delta(
        others=drawing.population - 1, rate=sampling.rate, rounds=rounds, decides=flags
    )


def decides(others: int, opened: Spare, gone: Callable[[int], int]) -> bool:
    """Whether one client decides if it and `others` have a sum, however many of them stop.

    opened: how many of a cohort may stop, and its sum is opened; -1: it has none.
    gone: how many of a cohort do stop, at the most.   The client itself may be one of them.
    """
    most, without, beside = gone(others + 1), opened(others), opened(others + 1)
    stays = min(without, most) != min(beside, most)
    stops = min(without, most - 1) != min(max(beside - 1, -1), most - 1)
    return stays or stops


def _gone(settings: Privacy) -> Callable[[int], int]:
    terms = plain_terms(settings)
    return lambda clients: terms.of(clients)[1]


def _spare(settings: Privacy) -> Spare:
    if settings.secure_aggregation == "ckks":
        return lambda clients: max(clients - settings.min_survivors, -1)
    return partial(spare, terms=plain_terms(settings))
