"""Tasks of Flower, taken by our own processes: no code that Flower carries is ever run.

A SuperNode would unpack the app that the server sends, and run it. Here the relay takes the task
in its place, reads the message in it, and leaves the app alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient

from atoll.flower.engine import patiently
from atoll.flower.options import Relay

__all__ = ["START", "claims", "working"]

START = 60.0
"""Seconds that Flower may take to start."""
LOOK = 0.1
"""Seconds between two looks for a task."""
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})


def claims(relay: Relay, kind: str) -> Iterator[str]:
    """The token of one task after the other, waiting for each.

    kind: Flower's name of the tasks, as `flwr-clientapp`.
    """
    client = RuntimeHttpClient.from_server_address(
        relay.address,
        relay.ca is None,
        relay.root,
        [
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=relay.secret.read_bytes(), protected_methods=_ACQUIRE
            ),
        ],
    )
    request = AcquireTaskRequest(supported_task_types=[kind])

    def ask() -> AcquireTaskResponse:
        found: AcquireTaskResponse = client.AcquireTask(request)
        return found

    while True:
        found = patiently(ask, (httpx.HTTPError,), seconds=START)
        if found.HasField("task") and found.token:
            yield found.token
        else:
            time.sleep(LOOK)


@contextmanager
def working(relay: Relay, token: str, name: str) -> Iterator[RuntimeHttpClient]:
    """A client of Flower that works on a task, and says so until it is done."""
    client = RuntimeHttpClient.from_server_address(
        relay.address,
        relay.ca is None,
        relay.root,
        [RuntimeVersionHttpInterceptor(component_name=name), RuntimeTokenHttpInterceptor(token)],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    sender = HeartbeatSender(_quiet(make_task_heartbeat_fn_http(client)))
    sender.start()
    try:
        yield client
    finally:
        sender.stop()
        client.close()


def _quiet(beat: Callable[[], bool]) -> Callable[[], bool]:
    """A heartbeat that fails where Flower's would raise in its thread."""

    def tried() -> bool:
        try:
            return beat()
        except httpx.HTTPError:
            return False

    return tried
