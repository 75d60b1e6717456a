"""The section of the experiment file about rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from atoll.config.call import Call, placed
from atoll.config.sections import SECTION, NonEmpty

__all__ = ["Data", "Scale"]


class Scale(BaseModel):
    """What numbers to predict are like, as everyone may know: they are scaled to 0 ± 1 by it."""

    model_config = SECTION

    mean: float = Field(ge=-1e100, le=1e100, description="Mean of the labels, about.")
    deviation: float = Field(ge=1e-100, le=1e100, description="Deviation of the labels, about.")


class Data(BaseModel):
    """The rows, and how they are divided."""

    model_config = SECTION

    path: NonEmpty = Field(
        description="Folder of clients, folder or file of one data set, hub id, or builtin:NAME."
    )
    partition: Call | None = Field(
        None, description="How one data set is divided among clients; null: it already is."
    )
    columns: Mapping[str, NonEmpty] = Field(
        default_factory=dict, description="Column names in the files, as {text: body}."
    )
    max_length: int = Field(128, ge=1, description="Tokens of the longest row.")
    truncation: bool = Field(
        True, description="Longer rows are cut and counted (true), or refused (false)."
    )
    holdout: float = Field(
        0.1, ge=0, lt=1, description="Share of a client's rows held out where it has no test rows."
    )
    labels: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="All label names in order; null: collected from clients, except under privacy.",
    )
    label_scale: Scale | None = Field(
        None,
        description="For regression: what labels are scaled by, as {mean: 40, deviation: 10}; "
        "null: the moments of all training rows, except under privacy.",
    )
    completion_only: bool = Field(
        True, description="For causal-lm: the loss counts completions, not prompts."
    )
    packing: bool = Field(
        False, description="For causal-lm: several short rows in one sequence of max_length."
    )
    mlm_probability: float = Field(
        0.15, gt=0, lt=1, description="For masked-lm: share of the tokens to predict."
    )

    @field_validator("partition", mode="before")
    @classmethod
    def _iid_by_default(cls, value: object) -> object:
        return {"name": "iid", **value} if isinstance(value, dict) else value

    @field_validator("partition")
    @classmethod
    def _placed(cls, value: Call | None, info: ValidationInfo) -> Call | None:
        return placed(value, "data.partition", info.context)
