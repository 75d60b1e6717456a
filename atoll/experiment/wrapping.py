"""What is done around the server that an algorithm brings: to the adapter, and on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from atoll.config import Loaded
from atoll.config.peft_fields import peft_config
from atoll.core import Channel, Payload, Server, Stage, State
from atoll.errors import ConfigError
from atoll.local.bench import Bench
from atoll.servers.budget import within_budget
from atoll.servers.steps import in_steps

__all__ = ["wrapped"]


def wrapped(loaded: Loaded, bench: Bench, server: Server, packing: Sequence[Stage]) -> Server:
    """The server, with all that the file's adapter and its way down ask for."""
    if loaded.experiment.adapter.local_head == "prototypes" and not bench.train_head:
        server = _with_prototypes(server)
    if loaded.experiment.adapter.method == "adalora":
        server = _with_budget(loaded, server)
    return _packed(loaded, server, packing) if packing else server


def _with_prototypes(inner: Server) -> Server:
    """Local training sees class prototypes in the head's place, once the statistics gave them."""

    def broadcast(state: State, client: str) -> Payload:
        payload = inner.broadcast(state, client)
        return (
            payload | {"head": Channel(state["prototypes"])} if "prototypes" in state else payload
        )

    return replace(inner, broadcast=broadcast)


def _packed(loaded: Loaded, inner: Server, packing: Sequence[Stage]) -> Server:
    """The adapter moves as far as its clients can follow."""
    where = loaded.where("federation.broadcast_stages")
    if loaded.experiment.adapter.method == "adalora":
        raise ConfigError(
            f"{where}: adapter.method adalora sets values to exactly 0, which packing does not "
            "keep; leave federation.broadcast_stages out"
        )
    try:
        return in_steps(inner, packing)
    except ConfigError as error:
        raise type(error)(f"{where}: {error}") from error


def _with_budget(loaded: Loaded, inner: Server) -> Server:
    """AdaLoRA cuts ranks after each round."""
    settings, rounds = loaded.experiment.adapter.config, loaded.experiment.federation.num_rounds
    try:
        return within_budget(inner, peft_config("adalora", settings, rounds=rounds))
    except ValueError as error:
        raise ConfigError(
            f"adapter.config: adalora of PEFT refuses it with federation.num_rounds {rounds}, "
            f"which are its steps: {error}"
        ) from error
