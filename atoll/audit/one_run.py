"""A lower bound on ε from one run with many canaries.

Steinke, Nasr, Jagielski, Privacy Auditing with One (1) Training Run (NeurIPS 2023,
arXiv 2305.08846): each of m canaries takes part by a fair coin, an observer guesses r of the coins
and leaves the others, and v guesses are right. Under (ε, δ) a guess is right with a chance of
p = e^ε / (1 + e^ε) at most, but for what δ adds (Theorem 5.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

__all__ = ["CONFIDENCE", "epsilon_lower_bound", "lower_bound_from_scores", "p_value"]

CONFIDENCE = 0.95
_MOST = 50.0
_HALVINGS = 50


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """How likely at least `right` guesses are under (ε, δ): β + 2·m·δ·α, at most 1.

    β = P[Bin(r, p) ≥ v],   α = max over 1 ≤ i ≤ v of P[v − i ≤ Bin(r, p) < v] / i.
    """
    assert 0 <= right <= guesses <= canaries, "there are so many guesses among so many canaries"
    chance = 1 / (1 + np.exp(-epsilon))
    beta = float(binom.sf(right - 1, guesses, chance))
    if not delta or not right:
        return min(beta, 1.0)
    steps = np.arange(1, right + 1)
    below = binom.cdf(right - 1, guesses, chance) - binom.cdf(right - 1 - steps, guesses, chance)
    return min(beta + 2 * canaries * delta * float((below / steps).max()), 1.0)


def epsilon_lower_bound(
    canaries: int, guesses: int, right: int, delta: float, *, confidence: float = CONFIDENCE
) -> float:
    """The largest ε that so many right guesses refute at that confidence; 0 where they do none."""
    low, high = 0.0, _MOST
    if p_value(canaries, guesses, right, low, delta) >= 1 - confidence:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        refuted = p_value(canaries, guesses, right, middle, delta) < 1 - confidence
        low, high = (middle, high) if refuted else (low, middle)
    return low


def lower_bound_from_scores(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    delta: float,
    *,
    confidence: float = CONFIDENCE,
) -> float:
    """The best bound over numbers of guesses: the highest scores are "in", the lowest "out".

    Guesses are an eighth of the canaries, a quarter, half and all; that four bounds are tried costs
    each of them a quarter of the doubt (Bonferroni).
    """
    order, canaries = np.argsort(-scores, kind="stable"), len(scores)
    sides = sorted({max(canaries // share, 1) for share in (16, 8, 4, 2)})
    each = 1 - (1 - confidence) / len(sides)
    found = []
    for side in sides:
        right = int(included[order[:side]].sum() + (~included[order[-side:]]).sum())
        found.append(epsilon_lower_bound(canaries, 2 * side, right, delta, confidence=each))
    return max(found)
