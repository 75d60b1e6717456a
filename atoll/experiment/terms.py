"""What a server and its clients tell each other before training: never a row.

server                                     client
Opening(experiment)                 -->    Offer(counts, label names as its policy allows)
Opening(experiment, agreed)         -->    Offer(the same, with the base's fingerprint)
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from atoll.certs.identity import Claimed
from atoll.core.facts import STRICT
from atoll.data import RowKind

__all__ = ["Agreed", "Offer", "Opening", "Private", "Sums"]

Number = Annotated[float, Field(allow_inf_nan=False)]
Rows = Annotated[int, Field(ge=0, lt=2**31)]
Label = Annotated[str, Field(max_length=1000)]


class Sums(BaseModel):
    """Mean and spread of numbers to predict, as `Moments`."""

    model_config = STRICT

    count: Rows
    mean: Number
    square: Annotated[Number, Field(ge=0)]


class Private(BaseModel):
    """What a run spends, as its server says: of how many clients, with which noise."""

    model_config = STRICT

    population: Annotated[int, Field(ge=1, lt=2**31)]
    noise_multiplier: Annotated[Number, Field(ge=0)]


class Agreed(BaseModel):
    """What all clients train with.

    base: SHA-256 of the base's weights.   label_counts: over all clients, where they are needed.
    private: None where nothing is promised.   roster: who signs in secure sums.
    """

    model_config = STRICT

    kind: RowKind
    labels: tuple[Label, ...] | None
    moments: Sums | None
    label_counts: dict[Label, Rows] | None
    base: str
    private: Private | None = None
    roster: dict[str, Claimed] | None = None


class Opening(BaseModel):
    """experiment: the resolved file's text.   agreed: None where it is still to be found."""

    model_config = STRICT

    versions: dict[str, str]
    run: str
    experiment: Annotated[str, Field(max_length=2**20)]
    agreed: Agreed | None


class Offer(BaseModel):
    """What one client brings.

    labels: the names of its training labels, None where they stay.   decimal: some are decimals.
    base: its base's fingerprint, once it was loaded.   identity: with which it signs secure sums.
    """

    model_config = STRICT

    versions: dict[str, str]
    kind: RowKind
    train: Rows
    test: Rows
    labels: Annotated[tuple[Label, ...], Field(max_length=100_000)] | None
    decimal: bool
    moments: Sums | None
    label_counts: dict[Label, Rows] | None
    base: str | None = None
    identity: Claimed | None = None
