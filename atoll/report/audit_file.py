"""audit.json, typed: what `atoll audit` found of a run."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from atoll.report.records import LENIENT, Interval

__all__ = [
    "FILE",
    "FORMAT",
    "Audit",
    "Books",
    "Claim",
    "Exposed",
    "Measured",
    "Mechanism",
    "Membership",
    "Secrets",
    "Seen",
    "View",
]

FILE, FORMAT = "audit.json", 2


class Seen(BaseModel):
    """What one view of uploads gives away."""

    model_config = LENIENT

    tokens: float | None = None
    token_chance: float | None = None
    token_auc: float | None = None
    exact: float | None = None
    wrong: float | None = None
    true: float | None = None
    row_auc: float | None = None
    order: float | None = None


class View(BaseModel):
    """One way to look at uploads: step, batch, client, sum, noisy."""

    model_config = LENIENT

    name: str
    clients: int
    rows: int
    seen: Seen


class Exposed(BaseModel):
    """Bits of secrets that stood so often among their client's rows."""

    model_config = LENIENT

    copies: int
    bits: float
    fitted: float | None = None
    secrets: int


class Secrets(BaseModel):
    """Planted secrets, after training as the run's, and under privacy."""

    model_config = LENIENT

    plain: tuple[Exposed, ...]
    private: tuple[Exposed, ...]
    rounds: int
    rows: int
    compared: int


class Measured(BaseModel):
    """A number and its interval."""

    model_config = LENIENT

    value: float
    interval: Interval = None


class Membership(BaseModel):
    """Who was trained on, told by losses."""

    model_config = LENIENT

    auc: Measured
    tpr: Measured | None = None
    members: int
    others: int


class Claim(BaseModel):
    """A promise, and the noise that it rests on."""

    model_config = LENIENT

    epsilon: float | None = None
    delta: float
    unit: str = "client"
    noise_multiplier: float
    rounds: int
    rate: float
    mechanism: str = "gaussian"


class Mechanism(BaseModel):
    """What canary clients saw of the noise; own: it is the run's, and not one to compare with.

    bound, estimate: of noise that is simulated as claimed.   expected, noise: in the run's own
    code; untried: why that was not tried.
    """

    model_config = LENIENT

    claim: Claim
    own: bool
    canaries: int
    bound: float
    estimate: float | None = None
    interval: Interval = None
    expected: float | None = None
    noise: float | None = None
    noise_interval: Interval = None
    untried: str = ""


class Books(BaseModel):
    """What the run's ledger comes to; unread: why it was not looked at."""

    model_config = LENIENT

    epsilon: float | None = None
    unread: str = ""


class Audit(BaseModel):
    """The whole file; missing: parts that say nothing of this run, and why.

    sees: the view that the run's own server had: client, sum or noisy.
    changed: whether the rows that were tried are others than it was trained on.
    refuted: why the run's promise does not hold.
    """

    model_config = LENIENT

    format: int
    epsilon: float | None = None
    delta: float | None = None
    compared: float
    sees: str = ""
    seconds: float
    changed: bool = False
    server: tuple[View, ...] | None = None
    secrets: Secrets | None = None
    membership: Membership | None = None
    mechanism: Mechanism | None = None
    ledger: Books | None = None
    refuted: tuple[str, ...] = ()
    missing: Mapping[str, str] = {}
