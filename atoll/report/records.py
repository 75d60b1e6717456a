"""The files of a run directory, typed.

What a run's version did not write yet is None or empty; so is a number that JSON has no word for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

__all__ = ["ClientRow", "Intervals", "Own", "RoundRow", "Summary"]


def _whole(value: Any) -> Any:
    """A pair with an end that could not be drawn is no interval."""
    return None if isinstance(value, list | tuple) and None in value else value


Interval = Annotated[tuple[float, float] | None, BeforeValidator(_whole)]
LENIENT = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
LOWER_IS_BETTER = frozenset({"perplexity"})
"""Of runs whose summary does not say which way is better."""


class ClientRow(BaseModel):
    """A client's rows, and each arm's metric on its own held-out rows.

    gain: how much better the federated model is than the client's own; negative where it is worse.
    """

    model_config = LENIENT

    train: int | None = None
    test: int | None = None
    federated: float | None = None
    local: float | None = None
    pooled: float | None = None
    gain: float | None = None
    gain_interval: Interval = None


class Own(BaseModel):
    """An arm on all clients' own held-out rows."""

    model_config = LENIENT

    mean: float | None = None
    worst: float | None = None
    worst_decile: float | None = None
    spread: float | None = None


class Intervals(BaseModel):
    """Bootstrap intervals of the federated metric on the common rows, and of its differences."""

    model_config = LENIENT

    level: float = 0.95
    federated: Interval = None
    federated_minus_local: Interval = None
    federated_minus_pooled: Interval = None


class Summary(BaseModel):
    """summary.json."""

    model_config = LENIENT

    task: str | None = None
    metric: str = "metric"
    higher_is_better: bool | None = None
    final: float | None = None
    baselines: Mapping[str, float | None] = {}
    metrics: Mapping[str, Mapping[str, float | None] | None] = {}
    own: Mapping[str, Own | None] = {}
    intervals: Intervals | None = None
    per_client: Annotated[Mapping[str, ClientRow], BeforeValidator(lambda found: found or {})] = {}
    best_round: int | None = None
    num_rounds: int | None = None
    exchanges: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    seconds: float | None = None
    trainable_parameters: int | None = None
    skipped_clients: tuple[str, ...] = ()
    epsilon: float | None = None
    delta: float | None = None
    privacy: Mapping[str, Any] | None = None
    secure_sums: Mapping[str, int | str | None] | None = None

    @property
    def higher(self) -> bool:
        """Whether a higher metric is a better one."""
        if self.higher_is_better is None:
            return self.metric not in LOWER_IS_BETTER
        return self.higher_is_better

    def gain(self, row: ClientRow) -> float | None:
        """How much better the federated model is on a client's rows than the client's own."""
        if row.gain is not None or row.federated is None or row.local is None:
            return row.gain
        return (1 if self.higher else -1) * (row.federated - row.local)


class RoundRow(BaseModel):
    """A line of rounds.jsonl; the metric is the first of its other keys."""

    model_config = LENIENT | ConfigDict(extra="allow")

    round: int
    loss: float | None = None
    own: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    exchanges: int | None = None
    clients: int | None = None
    failures: Mapping[str, str] | None = None
    seconds: float | None = None
    epsilon: float | None = None

    @property
    def metric(self) -> tuple[str, float | None] | None:
        """The metric's name, and its value where the round was measured."""
        for name, value in (self.model_extra or {}).items():
            if value is None or (isinstance(value, int | float) and math.isfinite(value)):
                return name, value
        return None
