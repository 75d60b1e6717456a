"""The section of the experiment file about privacy: who is protected, how much, and by what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field

from atoll.config.checks import Problem
from atoll.config.sections import SECTION

if TYPE_CHECKING:
    from atoll.config.federation import Evaluate, Federation

REACH = 1024.0
"""How far an adaptive bound may move from its first value, either way."""
__all__ = ["REACH", "AdaptiveClip", "Privacy", "check_chosen", "check_privacy"]


class AdaptiveClip(BaseModel):
    """A bound that follows a quantile of the updates' norms."""

    model_config = SECTION

    adaptive: Literal[True] = Field(description="The bound follows the norms of the updates.")
    quantile: float = Field(0.5, ge=0, le=1, description="Share of updates that are not cut.")
    initial: float = Field(0.1, gt=0, description="The bound of the first round.")
    learning_rate: float = Field(0.2, gt=0, description="Size of its steps, on a log scale.")
    count_noise: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Noise on the count of updates below it; null: a 20th of the cohort."
    )
    most: Annotated[float, Field(gt=0)] | None = Field(
        None, description="The largest that it may become; null: 1024 times initial."
    )

    @property
    def largest(self) -> float:
        """The largest bound that a client takes from a server."""
        return REACH * self.initial if self.most is None else self.most


class Privacy(BaseModel):
    """Differential privacy: whom it protects, how much, and by which noise."""

    model_config = SECTION

    unit: Literal["client"] = Field(
        "client", description="Whose presence is hidden: a whole client with all its rows."
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        description="What the run may spend: the noise is solved from it; beside a "
        "noise_multiplier, the run stops before it is crossed.",
    )
    noise_multiplier: float | None = Field(
        None, ge=0, description="Noise in units of clip; null: solved from epsilon."
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="Chance that epsilon does not hold; below 1 / clients."
    )
    clip: Annotated[float, Field(gt=0)] | AdaptiveClip = Field(
        1.0, description="L2 norm to which a client's update is cut, or how it is found."
    )
    mechanism: Literal["gaussian"] = Field(
        "gaussian", description="Where the noise comes from: the server adds it to the sum."
    )
    sampling: Literal["poisson", "fixed", "everyone"] = Field(
        "poisson",
        description="How cohorts are drawn, in secret: a coin for each client, a number of them, "
        "or nobody is left out.",
    )
    cap: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Most clients of a Poisson cohort; null: mean + 5 deviations."
    )

    secure_aggregation: bool = Field(
        False,
        description="The server sees the sum of a round's updates, and no update; clip is the "
        "largest value that it adds up.",
    )
    min_survivors: int = Field(
        5, ge=2, description="secure_aggregation: no sum of fewer clients is opened."
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
    ledger: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Folder of the ledger, which several runs on one data set may share; "
        "null: privacy/ in the run directory.",
    )

    @property
    def on(self) -> bool:
        """Whether anything is promised."""
        return self.epsilon is not None or self.noise_multiplier is not None


def check_privacy(privacy: Privacy, *, federation: Federation | None) -> Iterator[Problem]:
    """Values of the section, and of rounds beside which it would promise what does not hold."""
    if federation is not None and (privacy.on or privacy.secure_aggregation):
        yield from _check_late(federation)
    if not privacy.on:
        yield from _check_idle(privacy)
        return
    if privacy.cap is not None and privacy.sampling != "poisson":
        yield Problem(
            "privacy.cap",
            f"privacy.cap is {privacy.cap}, but privacy.sampling is {privacy.sampling}, whose "
            "cohorts have no chance to be larger; remove privacy.cap",
        )
    if federation is not None:
        yield from _check_rounds(privacy, federation)


def _check_idle(privacy: Privacy) -> Iterator[Problem]:
    """Values of the section that nothing reads."""
    secure = ("secure_aggregation", "clip", "min_survivors", "corrupt", "dropping", "max_examples")
    read = secure if privacy.secure_aggregation else ()
    fields = Privacy.model_fields.items()
    for key in [name for name, field in fields if vars(privacy)[name] != field.default]:
        if key not in read:
            yield Problem(
                f"privacy.{key}",
                f"privacy.{key} is set, but neither privacy.epsilon nor privacy.noise_multiplier "
                "is, so that it promises nothing; set one of them",
            )
    if privacy.secure_aggregation and isinstance(privacy.clip, AdaptiveClip):
        yield Problem(
            "privacy.clip",
            "privacy.clip is adaptive, which needs differential privacy; under secure_aggregation "
            "alone give a number, the largest value that is added up",
        )


def _check_late(federation: Federation) -> Iterator[Problem]:
    if federation.late != "drop":
        yield Problem(
            "federation.late",
            "federation.late is fold, but under privacy an answer counts in the round whose noise "
            "hides it, or never; set it to drop",
        )


def _check_rounds(privacy: Privacy, federation: Federation) -> Iterator[Problem]:
    if federation.min_clients > 1:
        yield Problem(
            "federation.min_clients",
            f"federation.min_clients is {federation.min_clients}, but under privacy who is absent "
            "counts as zero, and a round that waits for answers tells who gave them; remove it",
        )
    sampled = federation.clients_per_round is not None or federation.fraction_train is not None
    if sampled and privacy.sampling == "everyone":
        yield Problem(
            "privacy.sampling",
            "privacy.sampling is everyone, but federation asks a part of the clients "
            "(clients_per_round, fraction_train); remove that, or set sampling to poisson",
        )
    if federation.aggregator is not None:
        yield Problem(
            "federation.aggregator",
            f"federation.aggregator is {federation.aggregator.name}, but under privacy replies are "
            "summed on a grid to which noise is added; remove it",
        )


def check_chosen(evaluate: Evaluate, *, privacy: Privacy | None) -> Iterator[Problem]:
    """Ways to choose a model that look at what no noise hides."""
    if privacy is None or not privacy.on:
        return
    chosen = {"patience": evaluate.patience is not None, "load_best": evaluate.load_best}
    for key in (key for key, on in chosen.items() if on):
        yield Problem(
            f"evaluate.{key}",
            f"evaluate.{key} chooses a model by clients' held-out rows, which no noise hides; "
            f"remove evaluate.{key}",
        )
