"""A site's relay: takes messages from the SuperNode, and brings back what `atoll client` says.

Frames on standard output: CALL, a message's bytes. On standard input: ANSWER, the reply's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import httpx
from flwr.app import Message
from flwr.supercore.constant import TaskType
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from atoll.errors import PayloadError
from atoll.flower.engine import PART, end_with
from atoll.flower.message import content_of, data_of
from atoll.flower.options import Relay
from atoll.flower.tasks import claims, working
from atoll.frames import Frame, Kind, pipes, read_frame, write_frame

__all__ = ["main"]

NAME = "flwr-clientapp"


def main(arguments: Sequence[str]) -> None:
    """Relay until the process that started this one ends."""
    relay = Relay.model_validate_json(arguments[0])
    incoming, outgoing = pipes()
    end_with(incoming)
    for number, token in enumerate(claims(relay, TaskType.CLIENT_APP), start=1):
        try:
            _relayed(relay, token, number, (incoming, outgoing))
        except (httpx.HTTPError, RuntimeError) as error:
            # The server asks again; what was done for this message is kept by `atoll client`.
            sys.stderr.write(f"message {number} is lost: {error}\n")


def _relayed(relay: Relay, token: str, number: int, ends: tuple[int, int]) -> None:
    with working(relay, token, NAME) as client:
        message, context, _, _ = pull_task_input(client)
        data = data_of(message) or b""
        write_frame(ends[1], Frame(Kind.CALL, number, data), limit=2 * PART)
        answer = read_frame(ends[0], limit=2 * PART)
        if answer is None:
            sys.exit(0)
        if answer.kind is not Kind.ANSWER or answer.number != number:
            raise PayloadError(f"a frame of kind {answer.kind.name} came, expected an answer")
        push_message(client, Message(content_of(answer.data), reply_to=message), context)
        push_task_output(client=client, context=context, sub_status="completed", details="")
