"""Rows of clients of many sizes, and the few that stand for all of them in an accountant."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np

from atoll.accounting.epsilon import LEAST

__all__ = ["Drawn", "covered"]

Drawn = tuple[float, int]
"""The rate of a row in a step, and the steps of a round."""
SLACK = 1.05
"""How much more than the dearest client one may pay who stands for several."""
ORDERS = (2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512)


def covered(drawn: Iterable[Drawn], noise: float, rounds: int, delta: float) -> list[Drawn]:
    """A few pairs, of which one is as much as each client's in both; about the dearest one first.

    Neighbours in rate are one where that pays hardly more than the dearest client.
    """
    pairs, found = sorted(set(drawn), reverse=True) or [(1.0, 1)], list[Drawn]()

    @cache
    def pays(pair: Drawn) -> float:
        return _rough(pair, noise, rounds, delta)

    most = SLACK * max(map(pays, pairs))
    for rate, steps in pairs:
        both = (found[-1][0], max(found[-1][1], steps)) if found else (rate, steps)
        if found and pays(both) <= most:
            found[-1] = both
        else:
            found.append((rate, steps))
    return sorted(found, key=pays, reverse=True)


def _rough(drawn: Drawn, noise: float, rounds: int, delta: float) -> float:
    """About the ε of all steps.

    Source: Mironov, Talwar, Zhang, Rényi Differential Privacy of the Sampled Gaussian Mechanism
    (2019, arXiv 1908.10530), section 3.3, and Proposition 3 of Mironov (CSF 2017).
    """
    from scipy import special

    (rate, steps), order = drawn, np.array(ORDERS)[:, None]
    k = np.arange(order.max() + 1)
    others = np.maximum(order - k, 0)
    terms = special.xlogy(k, rate) + special.xlog1py(others, -rate)
    terms += k * (k - 1) / 2 / max(noise, LEAST) ** 2
    loss = special.logsumexp(terms, axis=1, b=special.comb(order, k))
    return float(np.min((rounds * steps * loss - np.log(delta)) / (order[:, 0] - 1)))
