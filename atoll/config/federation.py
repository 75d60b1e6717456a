"""The sections of the experiment file about the federation: rounds, algorithm, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from atoll.config.call import Call, placed
from atoll.config.sections import SECTION

__all__ = ["Evaluate", "Federation"]

C = Call | None | tuple[Call, ...]


class Federation(BaseModel):
    """Who takes part in a round, and what the round does."""

    model_config = SECTION

    num_rounds: int = Field(20, ge=0, description="Updates of the adapter; 0: only solve the head.")
    clients_per_round: int | None = Field(
        None, ge=1, description="Clients asked in a round; null: all, or fraction_train of them."
    )
    fraction_train: float | None = Field(
        None, gt=0, le=1, description="Share of the clients asked in a round."
    )
    min_clients: int = Field(1, ge=1, description="Answers without which a round does not count.")
    grace: float = Field(
        120.0,
        ge=0,
        allow_inf_nan=False,
        description="atoll server: seconds for which a round waits for more answers once "
        "min_clients have come.",
    )
    late: Literal["drop", "fold"] = Field(
        "drop",
        description="atoll server: what becomes of an answer that comes after its round: dropped, "
        "or folded into the client's next round.",
    )
    staleness: float = Field(
        0.5,
        gt=0,
        le=1,
        description="What an answer weighs that is folded late, for each round that it is.",
    )
    algorithm: Call = Field(
        Call("fedavg"), description="A name in atoll.algorithms, or my_package.module:function."
    )
    stages: tuple[Call, ...] = Field(
        (), description="Payload stages in the client's order (clip, quantise, ...)."
    )
    broadcast_stages: tuple[Call, ...] = Field(
        (),
        description="Stages (quantise, top_k) that pack the adapter's step for clients that have "
        "the last one; what is left out is in the next step.",
    )
    aggregator: Call | None = Field(
        None, description="How answers are combined; null: as the algorithm does."
    )
    server: Call | None = Field(None, description="Server optimiser; null: as the algorithm does.")
    runtime: Call = Field(Call("inprocess"), description="Where the clients run.")

    def cohort(self, population: int) -> int:
        """How many of the clients a round asks."""
        if self.clients_per_round is not None:
            return self.clients_per_round
        if self.fraction_train is not None:
            return max(1, round(self.fraction_train * population))
        return population

    @field_validator("algorithm", "stages", "broadcast_stages", "aggregator", "server", "runtime")
    @classmethod
    def _placed(cls, value: C, info: ValidationInfo) -> C:
        return placed(value, f"federation.{info.field_name}", info.context)


class Evaluate(BaseModel):
    """When the model is measured, and against what."""

    model_config = SECTION

    every: int = Field(1, ge=1, description="Rounds between two evaluations.")
    baselines: tuple[Literal["local", "pooled"], ...] = Field(
        ("local", "pooled"),
        description="Runs to compare with: each client alone, all rows in one place.",
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Evaluations without progress after which the run stops; null: never."
    )
    load_best: bool = Field(
        False,
        description="End with the model that was best on the clients' held-out rows, not the last.",
    )

    @field_validator("baselines")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a baseline is named twice; name each once")
        return value
