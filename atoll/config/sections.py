"""The sections of the experiment file about one client: model and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from atoll.config.tasks import TaskName

__all__ = ["SECTION", "Model", "NonEmpty", "Train"]

# Strict: 5 is no text, "5" is no number, true is no number; an integer is a number.
SECTION = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    ser_json_inf_nan="constants",
    validate_default=True,
    defer_build=True,
)

NonEmpty = Annotated[str, Field(min_length=1)]
Weights = Annotated[Mapping[str, float], Field(min_length=1)]


class Model(BaseModel):
    """The base model, the same at every client."""

    model_config = SECTION

    name_or_path: NonEmpty = Field(
        description="Hub id, local directory, or builtin:minilm or builtin:smollm2 (both work "
        "offline)."
    )
    task: TaskName = Field("classification", description="What the model learns to do.")
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = Field(
        "auto", description="Precision of the base model's weights."
    )
    pooling: Literal["auto", "mean", "cls", "last", "model"] = Field(
        "auto",
        description="How token features become one vector; auto: as the model was trained, else "
        "their mean under a solved head and the model's own way under a trained one.",
    )
    normalize: bool | None = Field(
        None,
        description="L2-normalise pooled features; null: as the model was trained, or where auto "
        "chose the mean.",
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model from the hub."
    )
    attn_implementation: NonEmpty | None = Field(
        None, description="Attention kernel, as in transformers; null: its default."
    )
    load_in_8bit: bool = Field(
        False,
        description="Round the base model's weights to 8 bits when they are loaded (needs the "
        "package torchao).",
    )
    gguf_file: NonEmpty | None = Field(
        None, description="The model's file, where it is one of GGUF; its weights are made plain."
    )
    revision: NonEmpty | None = Field(
        None, description="Branch, tag or commit of the model on the hub; null: its default."
    )


class Train(BaseModel):
    """A client's local training."""

    model_config = SECTION

    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of the adapter.")
    head_learning_rate: float | None = Field(
        None, gt=0, description="Learning rate of a trained head; null: learning_rate."
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="Local optimiser.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay (decoupled for adamw).")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="First beta of adamw.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="Second beta of adamw.")
    adam_epsilon: float = Field(1e-8, gt=0, description="Epsilon of adamw.")
    per_device_train_batch_size: int = Field(8, ge=1, description="Rows of a client in one step.")
    per_device_eval_batch_size: int = Field(32, ge=1, description="Rows in one evaluation batch.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches in one step.")
    num_train_epochs: int = Field(1, ge=1, description="Local epochs in one round.")
    max_steps: int | None = Field(
        None, ge=1, description="Local steps in one round, instead of num_train_epochs."
    )
    lr_scheduler_type: Literal["constant", "linear", "cosine", "constant_with_warmup"] = Field(
        "constant", description="Course of the learning rate."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps in which the learning rate rises.")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="Norm to which a client's gradient is clipped; null: not clipped."
    )
    restricted: bool = Field(
        False, description="Classification: the loss counts only labels that the client has."
    )
    logit_adjustment: float = Field(
        0.0, ge=0, description="Classification: logits are shifted by this times log label shares."
    )
    class_weights: Literal["balanced", "balanced-per-client"] | Weights | None = Field(
        None,
        description="For classes and tags: weights by label (1 if not named), or by how rare a "
        "label is, among all clients' rows (balanced) or a client's own.",
    )
    class_balance: bool = Field(
        False, description="true: the same as class_weights: balanced-per-client."
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Embedding: cosines are divided by this; null: the model's own where it has "
        "one, as CLIP has, else 0.05.",
    )
    learn_temperature: bool = Field(
        False, description="Embedding: the temperature trains too, from there."
    )
    symmetric: bool | None = Field(
        None,
        description="Embedding: positives look for their anchors too; null: between images and "
        "texts.",
    )
    dpo_beta: float = Field(
        0.1, gt=0, description="Preference: how strongly the model is held to the base model."
    )
    dpo_label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Preference: the share of rows taken for mistaken."
    )
    group_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Clients trained in one batch; auto: as many as pay."
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep less for backward, and compute the model's blocks again there: less "
        "memory, more time.",
    )
    prefix_cache: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="Where the outputs of frozen blocks below all trained ones are kept, computed "
        "once a row; auto: in memory, or on disk where they are many.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where the model runs; auto: a GPU where there is one."
    )
