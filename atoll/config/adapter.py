"""The section of the experiment file about what is trained and exchanged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from atoll.config.sections import SECTION, NonEmpty

__all__ = ["Adapter"]


class Adapter(BaseModel):
    """What is trained and exchanged, and how the head is found."""

    model_config = SECTION

    method: Literal["lora", "bitfit", "full", "none"] = Field(
        "lora", description="Trained part of the model; none: the head alone."
    )
    r: int = Field(8, ge=0, description="Rank of LoRA.")
    lora_alpha: float = Field(16, gt=0, description="LoRA is scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before LoRA.")
    use_rslora: bool = Field(False, description="Scale LoRA by lora_alpha / sqrt(r) instead.")
    target_modules: NonEmpty | Annotated[tuple[NonEmpty, ...], Field(min_length=1)] = Field(
        "all-linear", description="all-linear, a list of module names, or one regular expression."
    )
    head: Literal["lda", "ridge", "means", "logistic", "train"] | None = Field(
        None,
        description="Classifier: solved from statistics, or trained by gradient; null: lda for "
        "classification (ridge under a head without a bias), else the model's own.",
    )
    head_features: int | None = Field(
        None,
        ge=1,
        description="Width of a random cosine layer under the head (a kernel machine); null: none.",
    )
    refit_every: int | None = Field(
        None,
        ge=1,
        description="Rounds between refits of a solved head; null: first and last round only.",
    )
    head_exchanges: int = Field(8, ge=1, description="Steps (exchanges) of a logistic head.")
    head_ridge: float | None = Field(
        None, gt=0, description="Penalty of a ridge head; null: cross-validated from the same sums."
    )
    local_head: Literal["prototypes", "solved"] = Field(
        "prototypes",
        description="What local training sees while a solved head is held: class means, or itself.",
    )
    train_head: bool | None = Field(
        None, description="Train the head by gradient in rounds; null: only where head is train."
    )
