"""Why a promise does not hold."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.audit.findings import Books, Claim, Mechanism

__all__ = ["refuting"]


def refuting(claim: Claim, mechanism: Mechanism | None, ledger: Books) -> Iterator[str]:
    """Reasons against the claim of a run, in words that stand behind its promise."""
    if claim.epsilon is None:
        return
    if ledger.wrong:
        yield ledger.wrong
    if mechanism is None:
        return
    least = max(mechanism.bound, mechanism.least or 0.0)
    if mechanism.estimate is None:
        yield "simulated under its noise, clients are told with certainty"
    elif least > claim.epsilon:
        yield (
            f"noise of {claim.noise_multiplier:.4g} clips in {claim.rounds} releases comes to "
            f"about {mechanism.estimate:.3g}, and to no less than {least:.3g}"
        )
    if mechanism.less_noise:
        noise, expected = mechanism.noise, mechanism.expected
        seen = "" if noise is None else f", {noise:.3g} clips of {expected:.3g}"
        yield f"its own code adds less noise than promised{seen}"
