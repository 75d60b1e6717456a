"""The experiment file, typed: every key, its type, its default and one line about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, JsonValue, ValidationInfo, field_validator

from atoll.config.adapter import Adapter
from atoll.config.adapter_checks import check_adapter
from atoll.config.checks import (
    Problem,
    Problems,
    check_data,
    check_federation,
    check_later,
    check_train,
)
from atoll.config.data import Data
from atoll.config.federation import Evaluate, Federation
from atoll.config.open_checks import check_open
from atoll.config.privacy import Privacy
from atoll.config.privacy_checks import check_chosen, check_privacy
from atoll.config.sections import SECTION, Model, Train

__all__ = ["Experiment"]

T = TypeVar("T")

Trackers = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], Field(min_length=1)]


class Experiment(BaseModel):
    """One experiment file."""

    model_config = SECTION

    model: Model = Field(description="The base model, the same at every client.")
    data: Data = Field(description="The rows, and how they are divided.")
    adapter: Adapter = Field(default_factory=Adapter, description="What is trained and exchanged.")
    train: Train = Field(default_factory=Train, description="A client's local training.")
    federation: Federation = Field(
        default_factory=Federation, description="Who takes part in a round, and what it does."
    )
    privacy: Privacy = Field(
        default_factory=Privacy, description="Whose presence the model hides, and how well."
    )
    evaluate: Evaluate = Field(
        default_factory=Evaluate, description="When the model is measured, and against what."
    )
    devices: Mapping[str, JsonValue] = Field(
        default_factory=dict,
        description="Not available in this version.",
        json_schema_extra={"maxProperties": 0},
    )
    report_to: Literal["none", "tensorboard", "mlflow", "wandb"] | Trackers = Field(
        "none", description="Tracker, or list of trackers, that is sent the metrics of each round."
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of all training randomness.")
    output_dir: str = Field(
        default_factory=lambda: "runs/experiment",
        min_length=1,
        description="Run directory; default: runs/ and the experiment file's name.",
    )

    # Each section is checked by itself, so that one wrong section hides no other.
    @field_validator("data")
    @classmethod
    def _check_data(cls, data: Data, info: ValidationInfo) -> Data:
        return _refuse(check_data(data, model=info.data.get("model")), value=data)

    @field_validator("adapter")
    @classmethod
    def _check_adapter(cls, adapter: Adapter, info: ValidationInfo) -> Adapter:
        model: Model | None = info.data.get("model")
        return _refuse(check_adapter(adapter, model=model), value=adapter)

    @field_validator("train")
    @classmethod
    def _check_train(cls, train: Train) -> Train:
        return _refuse(check_train(train), value=train)

    @field_validator("federation")
    @classmethod
    def _check_federation(cls, federation: Federation, info: ValidationInfo) -> Federation:
        found = check_federation(federation, data=info.data.get("data"))
        return _refuse(found, value=federation)

    @field_validator("privacy")
    @classmethod
    def _check_privacy(cls, privacy: Privacy, info: ValidationInfo) -> Privacy:
        given = info.data
        found = check_privacy(privacy, federation=given.get("federation"))
        named = {key: given.get(key) for key in ("model", "data", "train")}
        return _refuse([*found, *check_open(privacy, **named)], value=privacy)

    @field_validator("evaluate")
    @classmethod
    def _check_evaluate(cls, evaluate: Evaluate, info: ValidationInfo) -> Evaluate:
        found = check_chosen(evaluate, privacy=info.data.get("privacy"))
        return _refuse(found, value=evaluate)

    @field_validator("devices")
    @classmethod
    def _check_later(
        cls, section: Mapping[str, JsonValue], info: ValidationInfo
    ) -> Mapping[str, JsonValue]:
        return _refuse(check_later(section, name=str(info.field_name)), value=section)

    @field_validator("report_to")
    @classmethod
    def _named_once(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("a tracker is named twice; name each once")
        return value


def _refuse(found: Iterable[Problem], *, value: T) -> T:
    problems = tuple(found)
    if problems:
        raise Problems(problems)
    return value
