"""What an audit found: plain values, as audit.json holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.audit.canaries import Exposed
from atoll.audit.membership import Membership
from atoll.audit.server_view import View

__all__ = ["AUDIT", "FORMAT", "Claim", "Findings", "Mechanism", "Secrecy"]

AUDIT = "audit.json"
"""What the findings are called in a run's directory."""
FORMAT = 1


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

    bound: an ε that is refuted from below, at 95 % confidence; estimate: a suggestion, with its
        interval; None: nothing is hidden.
    noise: the noise multiplier that one round of the real code shows, with its interval; None: it
        was not looked at.   expected: what it should be, which is more than the claim's where an
        adaptive bound spends some of that.
    less_noise: whether less than promised shows, by the estimate or in the code.
    """

    claim: Claim
    own: bool
    canaries: int
    bound: float
    estimate: float | None
    interval: tuple[float, float] | None
    noise: float | None
    noise_interval: tuple[float, float] | None
    less_noise: bool
    expected: float | None = None

    def told(self) -> str:
        """What canaries say of ε."""
        if self.estimate is None:
            return "canary clients are told with certainty"
        less = ", and less noise than promised shows" if self.less_noise else ""
        return f"canary clients refute less than {self.bound:.3g}{less}"

    @property
    def refuted(self) -> bool:
        """Whether what is claimed cannot be true."""
        promised = self.claim.epsilon
        return self.own and promised is not None and (self.bound > promised or self.less_noise)


@dataclass(frozen=True)
class Findings:
    """All parts; None where a part is not covered, and `missing` says why, by its name.

    compared: the ε of what is shown under differential privacy.
    sees: the view that the run's own server had: client, sum or noisy.
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
    server: Sequence[View] | None = None
    secrets: Secrecy | None = None
    membership: Membership | None = None
    mechanism: Mechanism | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT
