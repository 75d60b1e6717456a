"""What an audit found: plain values, as audit.json holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.audit.canaries import Exposed
from atoll.audit.membership import Membership
from atoll.audit.server_view import View

__all__ = ["AUDIT", "FORMAT", "Books", "Claim", "Findings", "Mechanism", "Secrecy"]

AUDIT = "audit.json"
"""What the findings are called in a run's directory."""
FORMAT = 2


@dataclass(frozen=True)
class Claim:
    """What the run promises; epsilon: None where it promises nothing.

    unit: client or example.   noise_multiplier: in each of `rounds` releases, of which a unit is in
    each by a chance of `rate`.
    """

    epsilon: float | None
    delta: float
    unit: str
    noise_multiplier: float
    rounds: int
    rate: float
    mechanism: str = "gaussian"


@dataclass(frozen=True)
class Books:
    """What the run's ledger says of its claim.

    epsilon: what its releases come to; None: without bound, or unknown.
    wrong: how that contradicts the claim.   unread: why it was not looked at.
    """

    epsilon: float | None = None
    wrong: str = ""
    unread: str = ""


@dataclass(frozen=True)
class Secrecy:
    """How much of planted secrets a model gives away, trained as the run is, and under privacy.

    rounds, rows: of the training that planted them, and how many secrets each is compared with.
    """

    plain: Sequence[Exposed]
    private: Sequence[Exposed]
    rounds: int
    rows: int
    compared: int


@dataclass(frozen=True)
class Mechanism:
    """What canary clients saw of the noise of `claim`, which is the run's, or one to compare with.

    Of the arithmetic, under noise that is simulated as the claim has it:
    bound: an ε that is refuted from below, at 95 % confidence; estimate: a suggestion, with its
        interval; None: nothing is hidden.   least: an ε that such noise certainly does not keep;
        None: it cannot be held against the claim's.
    Of the run's own code:
    expected: the noise multiplier that it should show, which is more than the claim's where an
        adaptive bound spends some of that.   noise: what it does show, with its interval; None: too
        little shows to say.   less_noise: whether that is less.   untried: why it was not tried.
    """

    claim: Claim
    own: bool
    canaries: int
    bound: float
    estimate: float | None
    interval: tuple[float, float] | None
    least: float | None
    expected: float | None
    noise: float | None
    noise_interval: tuple[float, float] | None
    less_noise: bool
    untried: str = ""


@dataclass(frozen=True)
class Findings:
    """All parts; None where a part is not covered, and `missing` says why, by its name.

    compared: the ε of what is shown under differential privacy.
    sees: the view that the run's own server had: client, sum or noisy.
    changed: whether the rows that were tried are others than it was trained on.
    refuted: why the run's promise does not hold; none: nothing speaks against it.
    """

    run: str
    task: str
    method: str
    clients: int
    epsilon: float | None
    delta: float | None
    compared: float
    sees: str
    seconds: float
    changed: bool = False
    server: Sequence[View] | None = None
    secrets: Secrecy | None = None
    membership: Membership | None = None
    mechanism: Mechanism | None = None
    ledger: Books | None = None
    refuted: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT
