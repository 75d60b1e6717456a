"""The ε of sums to which each client adds a share of the noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from atoll.accounting.grid import Mechanism, Plan, Sum, planned
from atoll.accounting.shares import WHOLE_ORDERS, Floats, Shared, divergence, drawn
from atoll.errors import PrivacyError

__all__ = ["Guarantee", "guaranteed", "plan_for", "released"]

_ORDERS = np.concatenate(
    [np.arange(1.1, 10, 0.1), np.arange(10, 257), np.geomspace(272, 8192, 60).round()]
)


@dataclass(frozen=True)
class Guarantee:
    """Two ε for the same rounds, both for whether one client's updates were its own or zeros.

    server: against who knows each cohort and sees each sum, as the server does.
    readers: against who sees the sums or what was made of them and does not know who was asked.
    """

    server: float
    readers: float
    delta: float


def released(plan: Plan, survivors: int) -> Shared:
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
        colluding=plan.sum.colluding,
    )


def guaranteed(releases: Iterable[Shared], population: int, delta: float) -> Guarantee:
    """What releases of one run come to, counted with the clients that really survived.

    Against the server a client needs only the rounds in which it was asked.

    Readers: however a cohort was drawn, given how many it has it is a uniform draw from the
    population, and with it the noise; so the bound is that for draws without replacement, where
    another client takes the place of one (distance 2 · norm). A Poisson bound would not hold: the
    noise grows with the cohort, and its size in millions of values tells how many took part. It
    assumes uniform cohorts, and that whether a client answers depends on neither its data nor on
    who else was asked.
    """
    server, cohorts = np.zeros(len(_ORDERS)), np.zeros(len(_ORDERS))
    hidden = np.zeros(len(WHOLE_ORDERS))
    for release, count in Counter(releases).items():
        server += count * divergence(release, release.survivors - release.colluding)(_ORDERS)
        cohorts += count * divergence(release, release.survivors)(_ORDERS)
        hidden += count * drawn(release, population)
    readers = min(_epsilon(cohorts, _ORDERS, delta), _epsilon(hidden, WHOLE_ORDERS, delta))
    return Guarantee(_epsilon(server, _ORDERS, delta), readers, delta)


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
            worst = released(plan(exponent), total.floor)
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
