"""The section of the experiment file about privacy: who is protected, how much, and by what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from atoll.config.sections import SECTION

REACH = 1024.0
"""How far an adaptive bound may move from its first value, either way."""
LEAST_NOISE = 1e-6
"""Noise below it is lost on the grid that updates lie on, which has 2²⁰ steps in the bound."""
MOST_NOISE = 1e6
"""Noise beyond which no model is left."""
_Length = Annotated[float, Field(ge=1e-9, le=1e9)]
"""Of an update, with room for its noise among floats."""
__all__ = ["LEAST_NOISE", "MOST_NOISE", "REACH", "AdaptiveClip", "Privacy"]


class AdaptiveClip(BaseModel):
    """A bound that follows a quantile of the updates' norms."""

    model_config = SECTION

    adaptive: Literal[True] = Field(
        description="Switch of a bound that follows the norms of the updates."
    )
    quantile: float = Field(0.5, gt=0, lt=1, description="Share of updates that are not cut.")
    initial: _Length = Field(0.1, description="The bound of the first round.")
    learning_rate: float = Field(0.2, gt=0, le=10, description="Size of its steps, on a log scale.")
    count_noise: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None,
        description="Noise on the count of updates below it; null: a 20th of the cohort, or the "
        "noise multiplier where that is more.",
    )
    most: _Length | None = Field(
        None, description="The largest that it may become; null: 1024 times initial."
    )

    @property
    def largest(self) -> float:
        """The largest bound that a client takes from a server."""
        return REACH * self.initial if self.most is None else self.most


class Privacy(BaseModel):
    """Differential privacy: whom it protects, how much, and by which noise."""

    model_config = SECTION

    unit: Literal["client", "example"] = Field(
        "client",
        description="Whose presence is hidden: a whole client with all its rows, or each row.",
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="What the run may spend: the noise is solved from it; beside a "
        "noise_multiplier, the run stops before it is crossed.",
    )
    noise_multiplier: float | None = Field(
        None,
        ge=0,
        le=MOST_NOISE,
        description="Noise in units of clip, 0 for none; null: solved from epsilon.",
    )
    delta: float = Field(
        1e-5,
        ge=1e-12,
        lt=0.1,
        description="Chance that epsilon does not hold; below 1 / clients.",
    )
    clip: _Length | AdaptiveClip = Field(
        1.0, description="L2 norm to which a client's update is cut, or how it is found."
    )
    mechanism: Literal["gaussian", "blt", "distributed", "local"] = Field(
        "gaussian",
        description="Noise of the server on a round's sum, each anew or (blt) taken back later; of "
        "clients on their share of it (distributed) or on each update (local).",
    )
    noise: Literal["discrete_gaussian", "skellam"] = Field(
        "discrete_gaussian", description="distributed: of which kind a client's share is."
    )
    sampling: Literal["poisson", "fixed", "everyone", "turns"] = Field(
        "poisson",
        description="How cohorts are drawn: in secret, by a coin for each client or a number of "
        "them; or nobody is left out; or all in turns, which blt needs.",
    )
    cap: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Most clients of a Poisson cohort; null: mean + 5 deviations."
    )

    secure_aggregation: bool | Literal["ckks"] = Field(
        False,
        description="The server sees the sum of a round's updates, and no update; clip is the "
        "largest value that it adds up. By masks, or encrypted (ckks).",
    )
    key_holder: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="ckks: the client that decrypts sums, and does not work with the server; null, "
        "in a simulation alone: the first one.",
    )
    min_survivors: int = Field(
        5,
        ge=2,
        description="secure_aggregation: no sum of fewer clients is opened.",
    )
    corrupt: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="secure_aggregation: share of a cohort that may help the "
        "server to see more than the sum.",
    )
    dropping: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="secure_aggregation: share of a cohort that may stop in the middle.",
    )
    max_examples: int = Field(
        1024,
        ge=1,
        description="secure_aggregation, where clients weigh by rows: the most that count.",
    )
    lifetime_epsilon: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="What all runs of the ledger may spend together; a run that does not fit is "
        "refused before anyone is asked.",
    )
    ledger: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Folder of the ledger, which several runs on one data set may share; "
        "null: privacy/ in the run directory.",
    )

    @property
    def on(self) -> bool:
        """Whether anything is promised."""
        return self.epsilon is not None or self.noise_multiplier is not None

    @property
    def hides(self) -> bool:
        """Whether nothing of single clients may be told to the server, not even how they fare."""
        return self.on or bool(self.secure_aggregation)
