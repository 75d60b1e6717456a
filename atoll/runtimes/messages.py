"""What a runtime and a worker tell each other beside records: JSON of one strict form."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from atoll import errors
from atoll.core.facts import STRICT, complaint
from atoll.errors import AtollError, PayloadError, RunError

__all__ = ["PROTOCOL", "Ask", "Broken", "Identity", "Question", "broken", "error_of", "read"]

PROTOCOL = 3
"""Raised when frames, messages or records change."""

Message = TypeVar("Message", bound=BaseModel)
Count = Annotated[int, Field(ge=0, lt=2**31)]


class Identity(BaseModel):
    """What both sides must agree on, or their numbers are of different runs.

    experiment, data, base: SHA-256 of the resolved experiment file, of all rows, of all weights.
    """

    model_config = STRICT

    protocol: int
    atoll: str
    torch: str
    experiment: str
    data: str
    base: str

    def differs(self, other: Identity) -> str | None:
        """What `other`, a worker, has that is not of this run: a sentence, or None."""
        if (self.protocol, self.atoll) != (other.protocol, other.atoll):
            return f"it runs atoll {other.atoll}, and this run atoll {self.atoll}; install one"
        if self.torch != other.torch:
            return f"it runs torch {other.torch}, and this run torch {self.torch}; install one"
        if self.experiment != other.experiment:
            return "it reads another experiment file; start the run again"
        if self.data != other.data:
            return (
                "it reads other rows: data.path changed since the run began; put the rows back, or "
                "start a new run"
            )
        if self.base != other.base:
            return (
                "its base model has other weights: model.name_or_path changed since the run began; "
                "put them back, or start a new run"
            )
        return None


class Question(BaseModel):
    """One task for the clients of an ask.

    requests: for each of the clients, in their order, the number of the request that is meant.
    folded: the exchange of each client that was folded last.
    """

    model_config = STRICT

    algorithm: str
    requests: tuple[Count, ...]
    folded: dict[str, Count]


class Ask(BaseModel):
    """Tasks that travel together; a worker forgets requests that its last ask did not name."""

    model_config = STRICT

    clients: tuple[str, ...]
    questions: tuple[Question, ...]


class Broken(BaseModel):
    """An error that ends the run, by the name of its class."""

    model_config = STRICT

    error: str
    message: str


def read(kind: type[Message], data: bytes) -> Message:
    """A message from bytes.

    Raises:
        PayloadError: another form than agreed.
    """
    try:
        return kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise PayloadError(f"a message that came is refused: {complaint(error)}") from None


def broken(error: BaseException, message: str | None = None) -> bytes:
    """An error as bytes; `message` stands in for its own."""
    text = str(error) if message is None else message
    said = text.encode(errors="replace").decode()
    return Broken(error=type(error).__name__, message=said).model_dump_json().encode()


def error_of(data: bytes, *, worker: str) -> Exception:
    """The error that a worker sent: of its class if that is ours, a bug if it was one there."""
    sent = read(Broken, data)
    text = f"{worker}: {sent.message}"
    if sent.error == "AssertionError":
        return AssertionError(text)
    found: object = vars(errors).get(sent.error)
    if isinstance(found, type) and issubclass(found, AtollError):
        return found(text)
    return RunError(text)
