"""The section of the experiment file about what is trained and exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue, field_validator

from atoll.config.peft_methods import REFUSED, PeftMethod
from atoll.config.sections import SECTION, NonEmpty

__all__ = ["Adapter"]

Method = Literal["lora", "ia3", "bottleneck", "layers", "bitfit", "full", "none"]
Names = Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
Index = Annotated[int, Field(ge=0)]
Indices = Annotated[tuple[Index, ...], Field(min_length=1)]
Ranks = Mapping[NonEmpty, Annotated[int, Field(ge=1)]]
Alphas = Mapping[NonEmpty, Annotated[float, Field(gt=0)]]


class Adapter(BaseModel):
    """What is trained and exchanged, and how the head is found."""

    model_config = SECTION

    method: Method | PeftMethod = Field(
        "lora",
        description="Trained part of the model; layers: its last blocks; none: the head alone; "
        "from adalora on: adapters of PEFT, one client at a time.",
    )
    name_or_path: NonEmpty | None = Field(
        None,
        description="Folder of an adapter to go on from, PEFT's or the adapter/ of a run; null: a "
        "new one.",
    )
    r: int = Field(8, ge=0, description="Rank of LoRA.")
    lora_alpha: float = Field(16, gt=0, description="LoRA is scaled by lora_alpha / r.")
    rank_pattern: Ranks = Field(
        default_factory=dict,
        description="Ranks of target modules that have another than r, as {q_proj: 4}; names or "
        "regular expressions.",
    )
    alpha_pattern: Alphas = Field(
        default_factory=dict, description="As rank_pattern, of other values than lora_alpha."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before LoRA.")
    use_rslora: bool = Field(False, description="Scale LoRA by lora_alpha / sqrt(r) instead.")
    freeze_a: bool = Field(
        False, description="LoRA trains and sends B alone; A stays as it was drawn (FFA-LoRA)."
    )
    target_modules: NonEmpty | Names | None = Field(
        None,
        description="all-linear, a list of module names, or one regular expression; null: "
        "all-linear for lora, PEFT's usual ones for ia3, as placement says for bottleneck.",
    )
    layers_to_transform: Index | Indices | None = Field(
        None, description="Numbers of the layers that LoRA adapts, from 0; null: all."
    )
    layers_pattern: NonEmpty | Names | None = Field(
        None, description="Names of the lists that layers_to_transform counts in; null: any."
    )
    feedforward_modules: NonEmpty | Names | None = Field(
        None,
        description="Targets of ia3 that are scaled at their input, as target_modules names them; "
        "null: PEFT's usual ones.",
    )
    placement: Literal["pfeiffer", "houlsby"] = Field(
        "pfeiffer",
        description="Where bottleneck adapters stand: after the feed-forward part of each block, "
        "or (houlsby) after its attention too.",
    )
    reduction_factor: int = Field(
        16, ge=1, description="A bottleneck is this many times narrower than the model."
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        "relu", description="Activation inside a bottleneck."
    )
    num_layers: int = Field(2, ge=1, description="How many of the last blocks layers trains.")
    config: Mapping[str, JsonValue] = Field(
        default_factory=dict,
        description="Settings of an adapter of PEFT under PEFT's names, as {r: 256}.",
    )
    head: Literal["lda", "ridge", "means", "logistic", "train"] | None = Field(
        None,
        description="Head: solved from statistics, or trained; null: lda for classes (ridge where "
        "it has no bias), ridge for numbers and several labels, else train.",
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

    @field_validator("method", mode="before")
    @classmethod
    def _trains_here(cls, value: object) -> object:
        if isinstance(value, str) and value in REFUSED:
            raise ValueError(REFUSED[value])
        return value
