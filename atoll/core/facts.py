"""What a record says beside its tensors: JSON of one strict form for each kind of record."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from atoll.core.asked import Context

__all__ = [
    "FACTS",
    "STRICT",
    "TOLD",
    "ChannelFacts",
    "ContextFacts",
    "Facts",
    "FailureFacts",
    "PayloadFacts",
    "ReplyFacts",
    "RequestFacts",
    "StateFacts",
    "WireContext",
    "complaint",
]

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, revalidate_instances="always")
TOLD = 4_000
"""Characters of a failure's message that travel."""


def _sane(context: Context) -> Context:
    counts = (context.round, context.exchange, context.population, context.attempt)
    if not 0 <= context.seed < 2**63 or not all(0 <= count < 2**31 for count in counts):
        raise ValueError("its numbers are out of range")
    if len(set(context.cohort)) < len(context.cohort):
        raise ValueError("a client stands twice in its cohort")
    return context


WireContext = Annotated[Context, AfterValidator(_sane)]


class ChannelFacts(BaseModel):
    """A channel without its tree."""

    model_config = STRICT

    name: str
    reduce: Literal["mean", "sum", "none"]
    weight: str | None
    l2: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


class ContextFacts(BaseModel):
    """Of a context, which has no tensors."""

    model_config = STRICT

    record: Literal["context"] = "context"
    context: WireContext


class RequestFacts(BaseModel):
    """Of a request; a tree for each channel."""

    model_config = STRICT

    record: Literal["request"] = "request"
    context: WireContext
    channels: tuple[ChannelFacts, ...]


class ReplyFacts(BaseModel):
    """Of a reply; a tree for each channel."""

    model_config = STRICT

    record: Literal["reply"] = "reply"
    client: str
    channels: tuple[ChannelFacts, ...]


class FailureFacts(BaseModel):
    """Of a failure, which has no tensors."""

    model_config = STRICT

    record: Literal["failure"] = "failure"
    client: str
    kind: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=TOLD)]


class PayloadFacts(BaseModel):
    """Of a payload by itself; a tree for each channel."""

    model_config = STRICT

    record: Literal["payload"] = "payload"
    channels: tuple[ChannelFacts, ...]


class StateFacts(BaseModel):
    """Of a state; a tree for each part."""

    model_config = STRICT

    record: Literal["state"] = "state"
    parts: tuple[str, ...]


Facts = ContextFacts | RequestFacts | ReplyFacts | FailureFacts | PayloadFacts | StateFacts
FACTS: TypeAdapter[Facts] = TypeAdapter(Annotated[Facts, Field(discriminator="record")])


def complaint(error: ValidationError) -> str:
    """`channels.0.reduce: Input should be …`: the first thing that is wrong."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said
