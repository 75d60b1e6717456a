"""Payloads that a server sees in sum only: the extra exchanges of such a protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from atoll.core.asked import Failure, Reply, Request, Runtime, Task
from atoll.core.payload import Payload

__all__ = ["Sealed", "Sealing"]


@dataclass(frozen=True)
class Sealed:
    """One exchange whose replies are sealed.

    replies: the sealed ones, as they come.
    recover: (the sum of those that were folded, whose they were) -> the aggregate that they hide.
    traffic: bytes up and down of all that the protocol said beside them.
    """

    replies: Iterator[Reply | Failure]
    recover: Callable[[Payload, Sequence[str]], Payload]
    traffic: Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class Sealing:
    """How a stage hides single payloads.

    travels: the shapes of a reply -> those of a sealed one.
    seal: (request, encoded payload) -> what leaves the client, once, after every stage.
    begin: (runtime, task, the shapes of a reply) -> the exchange, once clients have their keys.
    """

    travels: Callable[[Payload], Payload]
    seal: Callable[[Request, Payload], Payload]
    begin: Callable[[Runtime, Task, Payload], Sealed]
