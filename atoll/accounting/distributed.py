"""The ε of rounds in which each client adds noise itself: to its update, or a share of a sum's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from atoll.accounting.grid import Mechanism, Plan, Sum, planned
from atoll.accounting.local import epsilon_of
from atoll.accounting.shares import WHOLE_ORDERS, Floats, Shared, divergence, drawn
from atoll.errors import PrivacyError

__all__ = ["Guarantee", "guaranteed", "plan_for", "released"]

_ORDERS = np.concatenate(
    [np.arange(1.1, 10, 0.1), np.arange(10, 257), np.geomspace(272, 8192, 60).round()]
)


@dataclass(frozen=True)
class Guarantee:
    """Two ε for the same rounds.

    server: against who knows each cohort and sees what the server does: each sum, or each noisy
    update.   readers: against who sees the sums or what was made of them and does not know who was
    asked.
    """

    server: float
    readers: float
    delta: float


def released(plan: Plan, survivors: int, population: int) -> Shared:
    """What unmasking the sum of so many clients would release.

    Raises:
        PrivacyError: when they are fewer than the noise was planned for.
    """
    if not plan.sum.floor <= survivors <= plan.sum.asked:
        raise PrivacyError(
            f"{survivors} clients answered, and the noise was planned for {plan.sum.floor} to "
            f"{plan.sum.asked}; their sum stays masked"
        )
    return Shared(
        mechanism=plan.mechanism,
        norm=plan.norm,
        values=plan.sum.values,
        sigma=plan.sigma,
        asked=plan.sum.asked,
        survivors=survivors,
        population=population,
        colluding=plan.sum.colluding,
    )


def guaranteed(releases: Iterable[Shared], delta: float) -> Guarantee:
    """What releases come to, counted with the clients that really survived.

    Sums: for whether one client's updates were its own or zeros. Against the server a client needs
    only the rounds in which it was asked. Single updates (`gaussian`): for which of any two updates
    a client had, at a distance of 2 · norm.

    Readers: however a cohort was drawn, given how many it has it is a uniform draw from the
    population, and with it the noise; so the bound is that for draws without replacement, where
    another client takes the place of one (distance 2 · norm). A Poisson bound would not hold: the
    noise grows with the cohort, and its size in millions of values tells how many took part. It
    assumes uniform cohorts, and that whether a client answers depends on neither its data nor on
    who else was asked.
    """
    counts = Counter[Shared]()
    for release in releases:
        counts[release.model_copy(update={"steps": 1})] += release.steps
    server, cohorts = np.zeros(len(_ORDERS)), np.zeros(len(_ORDERS))
    hidden = np.zeros(len(WHOLE_ORDERS))
    for one, count in counts.items():
        server += count * _seen(one)(_ORDERS)
        each = 2.0 if one.mechanism == "gaussian" else 1.0
        cohorts += count * divergence(one, one.survivors, distance=each)(_ORDERS)
        hidden += count * drawn(one)
    readers = min(_epsilon(cohorts, _ORDERS, delta), _epsilon(hidden, WHOLE_ORDERS, delta))
    alone = _alone(counts, delta)
    against = _epsilon(server, _ORDERS, delta) if alone is None else alone
    return Guarantee(against, min(readers, against), delta)


def _seen(release: Shared) -> Callable[[Floats], Floats]:
    """What the server sees of a round."""
    if release.mechanism == "gaussian":
        return divergence(release, 1, distance=2.0)
    return divergence(release, release.survivors - release.colluding)


def _alone(counts: Mapping[Shared, int], delta: float) -> float | None:
    """Where all updates hide in continuous noise of their own, the closed form; else None."""
    if not counts or any(one.mechanism != "gaussian" for one in counts):
        return None
    precision = sum(count * (2 * one.norm / one.sigma) ** 2 for one, count in counts.items())
    return epsilon_of(sigma=precision**-0.5, delta=delta, clip=1, neighbours="zero-out", rounds=1)


def plan_for(
    total: Sum, mechanism: Mechanism, *, epsilon: float, delta: float, rounds: int
) -> Plan:
    """The plan with the least noise, on a grid that holds it, that spends at most `epsilon` against
    the server.

    rounds: those in which any one client takes part, at most.

    Raises:
        PrivacyError: when no noise is enough.
    """

    def plan(exponent: float) -> Plan:
        return planned(total, 10.0**exponent, mechanism)

    def over(exponent: float) -> bool:
        try:
            worst = released(plan(exponent), total.floor, total.asked)
        except PrivacyError:
            return True  # so little noise needs a grid that is too fine for the modulus
        spent = rounds * divergence(worst, total.floor - total.colluding)(_ORDERS)
        return _epsilon(spent, _ORDERS, delta) > epsilon

    low, high = -1.0, 0.0
    while over(high):
        low, high = high, high + 1
        if high > 6:
            raise PrivacyError(
                f"no noise gives epsilon {epsilon:g} at delta {delta:g}; raise privacy.epsilon"
            )
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if over(middle) else (low, middle)
    return plan(high)


def _epsilon(divergence: Floats, orders: Floats, delta: float) -> float:
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    return float(compute_epsilon(orders, divergence, delta)[0])
