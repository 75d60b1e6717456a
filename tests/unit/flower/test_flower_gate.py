"""The public port, asked by raw bytes: what gets to the application behind it, and what does not.

The application here answers each request with the path that it saw; in a federation it is Flower's.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import socket
import time
import weakref
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    public_key_to_bytes,
    sign_message,
)
from flwr.supercore.protobuf.client import ProtobufRequestContext

from atoll.flower import gate, link
from atoll.flower.bodies import WholeRequest
from atoll.flower.callers import Callers
from atoll.flower.gate import BODY, SLICE, UNKNOWN, gated
from atoll.flower.options import MARK
from atoll.flower.pulls import OBJECT
from atoll.flower.pushes import OBJECTS, RECORD, unfit

RUN = "/v1/fleet/get-run"
PULL_OBJECT = "/v1/fleet/pull-object"
CONTROL = "/v1/control/start-run"
INSECURE = SimpleNamespace(enable_supernode_auth=False)


LEFT: weakref.WeakSet[Left] = weakref.WeakSet()
"""Of each request, what holds itself, as web frameworks leave requests."""


class Left:
    itself: Left


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the path and how many bytes came."""
    assert scope["type"] == "http"
    left = Left()
    left.itself = left
    LEFT.add(left)
    number, more = 0, True
    while more:
        message = await receive()
        number, more = number + len(message.get("body", b"")), message.get("more_body", False)
    body = f"{scope['path']} {number}".encode()
    if scope["path"] == PULL_OBJECT:
        body = bytes(number % 251 for number in range(3 * SLICE + 7))
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def served(state: Any = None) -> Iterator[tuple[int, int, list[str]]]:
    """The application on a public and a private port, and what the gate tells."""
    public, private, told = socket.socket(), socket.socket(), list[str]()
    for one in (public, private):
        one.bind(("127.0.0.1", 0))
        one.listen(512)
    port = public.getsockname()[1]
    callers = Callers(SimpleNamespace(state=state or INSECURE))
    app = gated(application, port=port, callers=callers, tell=told.append)
    config = uvicorn.Config(app, http=link._Prompt, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    running = Thread(target=lambda: asyncio.run(server.serve([public, private])))
    running.start()
    try:
        yield port, private.getsockname()[1], told
    finally:
        server.should_exit = True
        running.join(10)
        public.close()
        private.close()


def said(port: int, raw: bytes, *, wait: float = 5.0) -> bytes:
    """All that comes back until the other side ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as asked:
        asked.sendall(raw)
        found = b""
        while piece := asked.recv(2**16):
            found += piece
        return found


def request(path: str, *headers: str, method: str = "POST", body: bytes = b"",
            version: str = "1.1") -> bytes:  # fmt: skip
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(found: bytes) -> int:
    return int(found.split(b" ", 2)[1])


EMPTY = "Content-Length: 0"


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    with served() as (public, private, _):
        yield public, private


def test_what_sites_need_gets_through_and_the_rest_only_on_the_private_port(
    ports: tuple[int, int],
) -> None:
    public, private = ports
    assert said(public, request(RUN, EMPTY)).endswith(b"\r\n\r\n/v1/fleet/get-run 0")
    body = b"x" * BODY
    length = f"Content-Length: {BODY}"
    assert said(public, request(RUN, length, body=body)).endswith(b"/v1/fleet/get-run 6291456")
    assert status(said(public, request(CONTROL, EMPTY))) == 404
    assert said(private, request(CONTROL, EMPTY)).endswith(b"/v1/control/start-run 0")


@pytest.mark.parametrize(
    "path",
    [
        CONTROL, "/v1/runtime/acquire-task", "/health", "/docs", "/openapi.json", "/", "*",
        "/v1/fleet/", "/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol/start-run", "/v1/fleet/%252e%252e/control/start-run",
        "//v1/control/start-run", "//v1/fleet/get-run", "/v1//control/start-run",
        "/v1/control%2fstart-run", "/v1%2fcontrol%2fstart-run", "/%76%31/control/start-run",
        "/v1/fleet/get-run/../../control/start-run", "/v1/fleet/get-run%0a", "/v1/fleet/get-run%00",
        "/v1/fleet/get-run%3f/v1/control/start-run", "/v1/fleet/get-run;/v1/control/start-run",
        "/v1/fleet\\..\\control\\start-run", "/V1/Fleet/get-run", "/v1/fleet/get-run/",
        "http://localhost/v1/control/start-run", "http://x:1/v1/fleet/../control/start-run",
    ],
)  # fmt: skip
def test_no_other_path_gets_through(ports: tuple[int, int], path: str) -> None:
    assert status(said(ports[0], request(path, EMPTY))) == 404


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (request(RUN, EMPTY, method="GET"), 404),
        (request(RUN, EMPTY, method="PUT"), 404),
        (request(CONTROL, EMPTY, "X-HTTP-Method-Override: POST", "X-Original-URL: " + RUN,
                 "X-Forwarded-Prefix: /v1/fleet", "X-Forwarded-Host: localhost"), 404),
        (request(CONTROL, EMPTY, version="1.0"), 404),
        (b"GET /v1/control/start-run\r\n\r\n", 404),
        (request(RUN, version="1.0"), 411),
        (request(RUN), 411),
        (request(RUN, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 411),
        (request(RUN, "Transfer-Encoding: chunked", EMPTY, body=b"0\r\n\r\n"), 400),
        (request(RUN, EMPTY, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        (request(RUN, "Content-Length: 4, 4", body=b"abcd"), 400),
        (request(RUN, EMPTY, EMPTY), 400),
        (request(RUN, "Content-Length: -1"), 400),
        (request(RUN, "Content-Length: 0x10"), 400),
        (request(RUN, f"Content-Length: {BODY + 1}"), 413),
        (request(RUN, "Content-Length: 1" + 15 * "0"), 413),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)  # fmt: skip
def test_other_forms_of_a_request_are_refused(
    ports: tuple[int, int], raw: bytes, expected: int
) -> None:
    assert status(said(ports[0], raw)) == expected


def test_an_upgrade_or_a_second_request_is_no_way_in(ports: tuple[int, int]) -> None:
    upgrade = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
               "Upgrade: websocket")  # fmt: skip
    for path in (RUN, CONTROL):
        raw = request(path, *upgrade, method="GET").replace(b"close", b"Upgrade")
        assert status(said(ports[0], raw)) == 404
    h2c = request(CONTROL, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", EMPTY)
    assert status(said(ports[0], h2c.replace(b"close", b"Upgrade, HTTP2-Settings"))) == 404
    first, second = request(RUN, EMPTY), request(CONTROL, EMPTY)
    both = said(ports[0], first.replace(b"close", b"keep-alive") + second)
    assert b"/v1/fleet/get-run 0" in both
    assert b" 404 " in both
    # What stands in the body of a refused request is not read as the next one.
    hidden = request(CONTROL, f"Content-Length: {BODY}").replace(b"close", b"keep-alive")
    found = said(ports[0], hidden + request(RUN, EMPTY))
    assert found.count(b"HTTP/1.1") == 1
    assert status(found) == 404


def test_a_web_socket_is_closed(ports: tuple[int, int]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    scope = {"type": "websocket", "path": CONTROL, "server": ("::1", 9), "client": ("::1", 2)}
    told: list[str] = []
    callers = Callers(SimpleNamespace(state=INSECURE))
    asyncio.run(gated(application, port=9, callers=callers, tell=told.append)(scope, receive, send))
    assert sent == [{"type": "websocket.close"}]
    assert told == [f"a connection of ::1 for {CONTROL!r} is refused: no web sockets"]


def test_of_a_large_request_nothing_is_left(ports: tuple[int, int]) -> None:
    """Python would come to it some day; until then each is as large as an object."""
    public, private = ports
    gc.disable()
    try:
        LEFT.clear()
        said(public, request(RUN, EMPTY))
        assert len(LEFT) == 1
        large = b"\xff" * (SLICE + 1)
        for port, path, body in ((public, PULL_OBJECT, b""), (private, OBJECT, large)):
            told = f"Content-Length: {len(body)}"
            assert status(said(port, request(path, told, body=body))) == 200
            # The answer is out a little before.
            for _ in range(100):
                if not LEFT:
                    break
                time.sleep(0.05)
            assert not LEFT
    finally:
        gc.enable()


def test_a_large_answer_goes_out_in_slices() -> None:
    """A connection keeps a buffer as large as the largest part."""
    parts = list[Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        parts.append(message)

    app = gated(
        application,
        port=1,
        callers=Callers(SimpleNamespace(state=INSECURE)),
        tell=list[str]().append,
    )
    scope = {"type": "http", "server": ("here", 1), "path": PULL_OBJECT, "method": "POST",
             "headers": [(b"content-length", b"0")]}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    start, *bodies = parts
    assert (b"content-length", b"%d" % (3 * SLICE + 7)) in start["headers"]
    assert [len(one["body"]) for one in bodies] == [SLICE, SLICE, SLICE, 7]
    assert [one.get("more_body", False) for one in bodies] == [True, True, True, False]
    whole = b"".join(one["body"] for one in bodies)
    assert whole == bytes(number % 251 for number in range(3 * SLICE + 7))


def test_slow_connections_end_and_stop_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HURRY", 1.0)
    monkeypatch.setattr(gate, "WAIT", 1.0)
    half = request(RUN, "Content-Length: 9", body=b"four")
    with served() as (public, _, told):
        slow = [socket.create_connection(("127.0.0.1", public), timeout=10) for _ in range(99)]
        for number, one in enumerate(slow):
            # Nothing, a part of a head, a head and a part of a body; after one that was answered.
            one.sendall((b"", b"POST /v1/fl", half)[number % 3])
        again = socket.create_connection(("127.0.0.1", public), timeout=10)
        again.sendall(request(RUN, EMPTY).replace(b"close", b"keep-alive"))
        heard = b""
        while not heard.endswith(b"get-run 0"):
            heard += again.recv(2**16)
        again.sendall(b"POST /v1")
        assert status(said(public, request(RUN, EMPTY))) == 200
        ends = [_rest(one) for one in [*slow, again]]
    assert {end for number, end in enumerate(ends) if number % 3 < 2} == {b""}
    assert {status(end) for number, end in enumerate(ends) if number % 3 == 2} == {408}
    assert told[-1].endswith("for '/v1/fleet/get-run' is refused: it came in too slowly")


def _rest(one: socket.socket) -> bytes:
    with one:
        found = b""
        while piece := one.recv(2**16):
            found += piece
        return found


NOW = "2026-11-29T00:00:00"


@contextmanager
def known(admitted: dict[bytes, int]) -> Iterator[tuple[int, list[str]]]:
    """The public port where clients have keys, and what the gate tells."""
    kept = SimpleNamespace(
        get_node_id_by_public_key=admitted.get, get_node_info=lambda: list(admitted)
    )
    factory = SimpleNamespace(state=lambda: kept)
    state = SimpleNamespace(enable_supernode_auth=True, linkstate_factory=factory)
    with served(state) as (public, _, told):
        yield public, told


def heads(key: Any, signer: Any, path: str, body: bytes) -> dict[str, str]:
    """A request's headers, with signatures of the time and, written out here, of all of it."""
    whole = b"atoll request\0" + NOW.encode() + b"\0" + path.encode() + b"\0"
    whole += hashlib.sha256(body).digest()
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key[1])).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(signer[0], NOW.encode())).decode(),
        TIMESTAMP_HEADER: NOW,
        "Atoll-Signature": b64encode(sign_message(signer[0], whole)).decode(),
    }


def sent(port: int, path: str, body: bytes, given: Mapping[str, str], *more: str) -> int:
    lines = [f"{name}: {value}" for name, value in given.items()]
    return status(
        said(port, request(path, *lines, f"Content-Length: {len(body)}", *more, body=body))
    )


def test_only_a_clients_key_brings_much() -> None:
    mine, theirs = generate_key_pairs(), generate_key_pairs()
    admitted: dict[bytes, int] = {}
    body = PushObjectRequest(object_content=b"ArrayChunk  1\x00" + b"x" * UNKNOWN)
    raw, path = body.SerializeToString(), "/v1/fleet/push-object"
    with known(admitted) as (public, told):

        def asked(key: Any, signer: Any, **more: str) -> int:
            return sent(public, path, raw, {**heads(key, signer, path, raw), **more})

        # Nobody was admitted yet: not refused, but to come again.
        assert asked(mine, mine) == 503
        admitted[public_key_to_bytes(mine[1])] = 7
        assert asked(mine, mine) == 200
        assert asked(mine, theirs) == 401
        assert asked(theirs, theirs) == 401
        assert asked(mine, mine, **{TIMESTAMP_HEADER: "2026-11-29T00:00:01"}) == 401
        assert asked(mine, mine, **{FLEET_HTTP_SIGNATURE_HEADER: "no base 64"}) == 401
        assert sent(public, path, raw, {}) == 401
    assert told[0].endswith("is refused: a large request without a client's key")


def test_a_clients_headers_bring_no_other_request() -> None:
    mine, theirs, third = (generate_key_pairs() for _ in range(3))
    admitted = {public_key_to_bytes(one[1]): at for at, one in enumerate((mine, theirs))}
    body = b"what was asked"
    with known(admitted) as (public, told):
        own = heads(mine, mine, RUN, body)
        assert sent(public, RUN, body, own) == 200
        assert not told
        for path, other in ((RUN, b"what was asked."), (RUN, b""), ("/v1/fleet/get-fab", body)):
            assert sent(public, path, other, own) == 401
        assert "is refused: it is not as the key that it names has signed it" in told[0]
        for name in own:
            assert sent(public, RUN, body, {key: own[key] for key in own if key != name}) == 401
            # Whoever reads the first of two headers, or the last, must not be told something else.
            assert sent(public, RUN, body, own, f"{name}: {own[name]}") == 401
            assert sent(public, RUN, body, {**own, name: "no base 64, and no time: \xe9"}) == 401
        assert sent(public, RUN, body, heads(mine, theirs, RUN, body)) == 401
        later = {**own, TIMESTAMP_HEADER: "2026-11-29T00:00:01"}
        assert sent(public, RUN, body, later) == 401
        # Of who is no client the application behind the gate, which is Flower's, says so.
        assert sent(public, RUN, body, heads(third, third, RUN, b"")) == 200


def test_a_site_signs_what_it_sends_whole() -> None:
    mine = generate_key_pairs()
    content = b"x" * 100
    made = httpx.Request("POST", "https://localhost:9/v1/fleet/get-run", content=content)
    context = ProtobufRequestContext(rpc_method="GetRun", message=Message(), request=made)
    found = list[httpx.Headers]()

    def reached(context: ProtobufRequestContext) -> httpx.Response:
        found.append(context.request.headers)
        return httpx.Response(200)

    assert WholeRequest(*mine).intercept(context, reached).status_code == 200
    whole = b"atoll request\0" + found[0][TIMESTAMP_HEADER].encode() + b"\0/v1/fleet/get-run\0"
    whole += hashlib.sha256(content).digest()
    signature = b64decode(found[0]["atoll-signature"])
    mine[1].verify(signature, whole, ec.ECDSA(hashes.SHA256()))
    time = found[0][TIMESTAMP_HEADER].encode()
    signature = b64decode(found[0][FLEET_HTTP_SIGNATURE_HEADER])
    mine[1].verify(signature, time, ec.ECDSA(hashes.SHA256()))


def _push(**metadata: Any) -> bytes:
    told = {"src_node_id": 7, "dst_node_id": 1, "reply_to_message_id": "m", **metadata}
    return PushMessagesRequest(
        node=Node(node_id=7), messages_list=[Message(metadata=Metadata(**told))],
        message_object_trees=[ObjectTree(object_id="a")],
    ).SerializeToString()  # fmt: skip


def test_a_site_answers_and_asks_nobody() -> None:
    assert unfit("push-messages", _push()) == (0, "")
    assert unfit("push-messages", _push(src_node_id=8))[0] == 403
    # As an instruction of the SuperLink, to another site or to itself.
    assert unfit("push-messages", _push(src_node_id=1, dst_node_id=8))[0] == 403
    assert unfit("push-messages", _push(reply_to_message_id=""))[0] == 403
    assert unfit("push-messages", _push() + _push())[0] == 400
    assert unfit("push-messages", b"")[0] == 400
    assert unfit("push-messages", b"\xff" * 9)[0] == 400
    assert unfit("pull-messages", b"\xff" * 9) == (0, "")


def test_replies_are_bounded_in_number_and_kind_of_objects() -> None:
    wide = ObjectTree(object_id="a", children=[ObjectTree(object_id=str(i)) for i in range(10**5)])
    deep = ObjectTree(object_id="z")
    for number in range(OBJECTS):
        deep = ObjectTree(object_id=str(number), children=[deep])
    for tree in (wide, deep):
        request = PushMessagesRequest.FromString(_push())
        request.message_object_trees[0].CopyFrom(tree)
        assert unfit("push-messages", request.SerializeToString())[0] == 413

    def kept(content: bytes) -> int:
        return unfit("push-object", PushObjectRequest(object_content=content).SerializeToString())[
            0
        ]

    assert kept(b"ArrayChunk  1\x00" + b"x" * RECORD) == 0
    assert kept(b"ConfigRecord  1\x00" + b"x" * RECORD) == 413
    assert kept(b"x" * RECORD) == 0
    assert kept(MARK) == 400


def test_strangers_do_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(link.os, "write", lambda descriptor, text: written.append(text))
    now = [0.0]
    monkeypatch.setattr(link.time, "monotonic", lambda: now[0])
    tell = link._teller(1)
    for number in range(1000):
        tell(f"a request for {number}")
        tell("a request for 0")
    assert len(written) == link.MANY
    now[0] = link.AGAIN
    tell("a request for 0")
    assert written[-1] == b"a request for 0\n"
    assert len(written) == link.MANY + 1
