"""A site's policy, typed: every rule, its type, its default and one line about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic.functional_validators import AfterValidator

from atoll.config.sections import SECTION, NonEmpty
from atoll.config.tasks import TaskName
from atoll.config.words import did_you_mean
from atoll.policy.names import GROUPS
from atoll.policy.values import minutes, size

__all__ = ["ANY", "BUILTIN", "BUILT_IN", "HUB", "Policy", "Privacy"]

ANY: Literal["any"] = "any"
BUILT_IN = "built-in"
BUILTIN, HUB = "builtin", "hub"


def _listed(value: object) -> object:
    """One value stands for a list of it."""
    return (
        tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value
    )


def _bytes(value: object) -> object:
    return size(value) if isinstance(value, str) else value


def _window(text: str) -> str:
    minutes(text)
    return text


def _fingerprint(text: str) -> str:
    if text != ANY and not (len(text) == 64 and set(text) <= set("0123456789abcdef")):
        raise ValueError(
            f"write {ANY}, or fingerprints: 64 of the digits 0 to 9 and a to f, as "
            "fingerprints.base in a run's run.json"
        )
    return text


def _pattern(text: str) -> str:
    if text in GROUPS or set(text) & set("*?[."):
        return text
    words = ", ".join(GROUPS)
    raise ValueError(
        f"neither a pattern of names nor one of {words}{did_you_mean(text, among=GROUPS)}"
    )


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
Window = Annotated[str, AfterValidator(_window)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Tasks = Annotated[
    tuple[TaskName | Literal["any"], ...], Field(min_length=1), BeforeValidator(_listed)
]
Names = Annotated[
    tuple[NonEmpty, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=NonEmpty | tuple[NonEmpty, ...]),
]
Patterns = Annotated[
    tuple[Pattern, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...]),
]
Fingerprints = Annotated[
    tuple[Fingerprint, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...]),
]
Hours = Annotated[
    tuple[Window, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...]),
]
Bytes = Annotated[
    int,
    Field(ge=1, le=2**63 - 1),
    BeforeValidator(_bytes, json_schema_input_type=Annotated[int, Field(ge=1)] | NonEmpty),
]


class Privacy(BaseModel):
    """What a run's `privacy` section has to promise."""

    model_config = SECTION

    required: bool = Field(
        False,
        description="A run without differential privacy is refused.",
    )
    max_clip: float | None = Field(
        None, gt=0, description="Largest bound on one contribution (privacy.clip)."
    )
    min_noise_multiplier: float | None = Field(
        None, gt=0, description="Least noise, in units of that bound."
    )
    lifetime_epsilon: float | None = Field(
        None,
        gt=0,
        description="Largest epsilon of all runs here together.",
    )

    @field_validator("max_clip", "min_noise_multiplier", "lifetime_epsilon")
    @classmethod
    def _demanded(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("required") is False:
            raise ValueError("nothing demands it; set privacy.required: true")
        return value


class Policy(BaseModel):
    """What a site takes part in, and what may leave it."""

    model_config = SECTION

    tasks: Tasks = Field((ANY,), description="Tasks (model.task) that may train here.")
    algorithms: Names = Field(
        (BUILT_IN,),
        description="Functions that the federation section may name: built-in is all of Atoll's "
        "own; one of the site's own only as its module:function.",
    )
    models: Names = Field(
        (BUILTIN, HUB),
        description="Models that a federation may name (model.name_or_path): builtin, hub, any, or "
        "patterns of names or of folders here; --model of the site itself needs no leave.",
    )
    base_models: Fingerprints = Field(
        (ANY,),
        description="Base models by the fingerprint of their weights; any: whichever the site "
        "holds.",
    )
    remote_code: bool = Field(
        False,
        description="Python code that comes with a model (model.trust_remote_code) may run here.",
    )
    max_payload: Bytes = Field(
        64_000_000, description="Most bytes that leave in one exchange, as 64MB, 1GB or a number."
    )
    tensors: Patterns = Field(
        tuple(GROUPS),
        description="Tensors that may leave: adapters, biases, blocks, heads, statistics, or "
        'patterns of names; only "*" lets a full model leave.',
    )
    min_cohort: int = Field(
        5,
        ge=2,
        description="Least clients of a secure sum, which hides each of them among the others.",
    )
    privacy: Privacy = Field(
        default_factory=Privacy, description="What a run's privacy section has to promise."
    )
    min_rows: int = Field(
        20, ge=0, description="Least training rows here with which the site takes part."
    )
    metrics: bool = Field(
        True, description="Losses, and scores on this site's held-out rows, may leave."
    )
    label_names: bool = Field(
        False, description="Names of this site's labels may leave; false: data.labels gives them."
    )
    label_histograms: bool = Field(
        True,
        description="Counts and sums by label may leave: statistics of a solved head, macro-F1, "
        "class weights of all clients.",
    )
    error_texts: bool = Field(
        False,
        description="Texts of errors, which may quote a row, may leave; false: an error's type and "
        "line of code.",
    )
    guard: bool = Field(
        True,
        description="A model that is sent is held against the one before it, and refused where "
        "training does not make such a change.",
    )
    hours: Hours | None = Field(
        None,
        description='Local time in which training may run, as "20:00-06:00" or a list; null: '
        "always.",
    )
    max_rounds: int | None = Field(
        None, ge=0, description="Most rounds of a run (federation.num_rounds); null: no limit."
    )
