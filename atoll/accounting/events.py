"""What was released, as an accountant must know it: plain values that a ledger can hold."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

__all__ = ["Everyone", "Fixed", "InTurns", "Poisson", "Present", "Release", "Sampling", "Way"]

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


class Way(BaseModel):
    """How rows of clients of another size are drawn: by a coin of `rate` in each of `steps`."""

    model_config = _STRICT

    rate: Annotated[float, Field(gt=0, le=1)]
    steps: Count


class Release(BaseModel):
    """Gaussian noise on a sum to which each of `unit` contributes at most 1 in L2 norm.

    noise_multiplier: its standard deviation; 0 is no noise, and no privacy.
    steps: how often, each time with noise and a sample of its own.
    ways: a row is drawn as `sampling` and `steps` say, or in one of these ways, always the same.
    """

    model_config = _STRICT

    unit: Literal["client", "example"]
    noise_multiplier: Annotated[float, Field(ge=0)]
    sampling: Sampling
    steps: Count = 1
    ways: tuple[Way, ...] = ()

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ways where there is one alone."""
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if name != "ways" or value}

    def times(self, count: int) -> Release:
        """So many of it."""
        ways = tuple(one.model_copy(update={"steps": count * one.steps}) for one in self.ways)
        return self.model_copy(update={"steps": count * self.steps, "ways": ways})

    def least(self) -> tuple[Release, int]:
        """The smallest one of which this is a number, and that number."""
        count = math.gcd(self.steps, *(one.steps for one in self.ways))
        ways = tuple(one.model_copy(update={"steps": one.steps // count}) for one in self.ways)
        return self.model_copy(update={"steps": self.steps // count, "ways": ways}), count
