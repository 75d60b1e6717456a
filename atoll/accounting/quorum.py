"""What a quorum adds to δ where a coin of each client draws the cohort."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["quorum_delta"]


def quorum_delta(*, others: int, rate: float, rounds: int, decides: Sequence[bool]) -> float:
    """What `rounds` sums that one client may open or close add to δ, under add-or-remove-one.

    decides: for 0, 1, … of the `others` in a cohort, and at last for so many or more, whether one
    client beside them decides if there is a sum.

    Where it does not, or its coin falls the other way, a release is that of a sum without a quorum.
    Let K count the rounds in which it would, whose chance π knows nothing of its coin. With the
    client, a cohort in which it decides has the chance π · rate a round. Without it, the outcome of
    such a round has at least 1 − rate of its probability with it, so that an event of ε too much
    gains E[(1 − rate)^−K] − 1 at most, which is the larger one. It says nothing from 1 on.
    """
    from scipy.special import gammaln

    sizes = np.arange(others + 1.0)
    ways = gammaln(others + 1) - gammaln(sizes + 1) - gammaln(others - sizes + 1)
    chances = np.exp(ways + sizes * math.log(rate) + (others - sizes) * math.log1p(-rate))
    flags = np.array(decides, bool)[np.minimum(sizes.astype(int), len(decides) - 1)]
    deciding = float(chances[flags].sum())
    gain = rounds * math.log1p(deciding * rate / (1 - rate))
    return math.expm1(min(gain, math.log(2)))
