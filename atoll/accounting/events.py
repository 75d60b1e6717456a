"""What was released, as an accountant must know it: plain values that a ledger can hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Everyone", "Fixed", "InTurns", "Poisson", "Present", "Release", "Sampling"]

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=1, le=2**31)]


class Poisson(BaseModel):
    """Each takes part by a coin of its own; of more than `cap`, that many are drawn uniformly.

    population: of whom; it matters to the cap only.
    """

    model_config = _STRICT

    kind: Literal["poisson"] = "poisson"
    rate: Annotated[float, Field(gt=0, le=1)]
    cap: Count | None = None
    population: Count | None = None

    @model_validator(mode="after")
    def _whole(self) -> Poisson:
        if (self.cap is None) != (self.population is None):
            raise ValueError("a cap needs the population, and the population a cap")
        return self


class Fixed(BaseModel):
    """A uniform draw of `size` among `population`, without replacement."""

    model_config = _STRICT

    kind: Literal["fixed"] = "fixed"
    size: Count
    population: Count

    @model_validator(mode="after")
    def _within(self) -> Fixed:
        if self.size > self.population:
            raise ValueError(f"{self.size} cannot be drawn of {self.population}")
        return self


class Everyone(BaseModel):
    """All take part, or whoever does is known: nothing is hidden by chance."""

    model_config = _STRICT

    kind: Literal["everyone"] = "everyone"


class InTurns(BaseModel):
    """All in order, again and again: nothing is hidden by chance. Whose turn it is does not change
    with what a client has, but it would if one were not there."""

    model_config = _STRICT

    kind: Literal["turns"] = "turns"


class Present(BaseModel):
    """All take part, and that each of them is there is no secret either: of fewer there would be
    no sum."""

    model_config = _STRICT

    kind: Literal["present"] = "present"


Sampling = Annotated[Poisson | Fixed | Everyone | InTurns | Present, Field(discriminator="kind")]


class Release(BaseModel):
    """Gaussian noise on a sum to which each of `unit` contributes at most 1 in L2 norm.

    noise_multiplier: its standard deviation; 0 is no noise, and no privacy.
    steps: how often, each time with noise and a sample of its own.
    """

    model_config = _STRICT

    unit: Literal["client", "example"]
    noise_multiplier: Annotated[float, Field(ge=0)]
    sampling: Sampling
    steps: Count = 1
