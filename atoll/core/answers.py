"""Asking client work, so that what breaks at one client costs the others nothing."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from atoll.core.asked import Failure, Reply, Request
from atoll.core.parts import ClientWork
from atoll.errors import AtollError, PayloadError, out_of_memory

__all__ = ["UNASKED", "answers", "in_order", "unasked"]

UNASKED = "unasked"


def answers(client: ClientWork, requests: Sequence[Request]) -> Iterator[Reply | Failure]:
    """What `client` answers; an exception becomes a Failure of the client that it stays with.

    Clients work in stacks, so that an exception names none of them: those that have not answered
    are asked again in halves, until the one is alone. A broken assertion is a bug, memory that ran
    out is the machine's, and rows or files that cannot be used (but for a payload) are the user's:
    these end the run.
    """
    waiting = {request.context.client: request for request in requests}
    try:
        for answer in client.work(requests):
            waiting.pop(answer.client, None)
            yield answer
    except Exception as error:
        if _ends_the_run(error):
            raise
        left = list(waiting.values())
        if not left:
            raise
        if len(requests) == 1:
            yield Failure(left[0].context.client, "error", _told(error))
            return
        half = (len(left) + 1) // 2
        for few in filter(None, (left[:half], left[half:])):
            yield from answers(client, few)


def _told(error: Exception) -> str:
    """The error, and the line that raised it: the traceback itself ends at the client."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def _ends_the_run(error: Exception) -> bool:
    told = isinstance(error, AtollError) and not isinstance(error, PayloadError)
    return told or isinstance(error, AssertionError) or out_of_memory(error)


def unasked(
    asked: Iterator[Reply | Failure], cohort: Sequence[str], why: str
) -> Iterator[Reply | Failure]:
    """Of a cohort that has no sum: asked: that of nobody, by which a runtime hears of the round."""
    yield from asked
    yield from (Failure(client, UNASKED, f"nobody was asked: {why}") for client in cohort)


def in_order(
    replies: Iterator[Reply | Failure], cohort: Sequence[str]
) -> Iterator[Reply | Failure]:
    """Answers in cohort order: early ones wait for their turn, and one that never came failed."""
    waiting, turn = dict[str, Reply | Failure](), 0
    for reply in replies:
        waiting[reply.client] = reply
        del reply  # whoever folds it is the last to have it
        while turn < len(cohort) and cohort[turn] in waiting:
            yield waiting.pop(cohort[turn])
            turn += 1
    for client in cohort[turn:]:
        yield waiting.pop(client, Failure(client, "lost", "the runtime brought no answer"))
