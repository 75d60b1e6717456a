"""Who may see a page: whoever was given its address, from a page of this machine and no other."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from atoll.asgi import App, Message, Receive, Scope, Send

__all__ = ["ACTION", "Keys", "guarded"]

HOSTS = {"127.0.0.1", "localhost"}
ACTION = "x-atoll-token"
"""The header that whoever acts has to send: no form and no other site's page can."""
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def _token() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Keys:
    """look: in the address, then in a cookie.   act: in the page, then in a header."""

    look: str = field(default_factory=_token)
    act: str = field(default_factory=_token)


def guarded(app: App, keys: Keys, *, port: int, note: Callable[[str], None]) -> App:
    """`app`, behind its keys; what goes wrong in it is told once and ends nothing."""
    cookie, told = f"atoll-{port}", set[str]()

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        why = _refusal(request, keys, cookie)
        if why:
            await PlainTextResponse(why, 403, HEADERS)(scope, receive, send)
            return
        try:
            await app(
                scope, receive, _headed(send, cookie, keys, new="token" in request.query_params)
            )
        except Exception as error:
            text = f"the page failed: {type(error).__name__}: {error}"
            if text not in told:
                told.add(text)
                note(text)

    return guard


def _refusal(request: Request, keys: Keys, cookie: str) -> str:
    """Why a request is not answered."""
    host = request.headers.get("host", "")
    if host.rpartition(":")[0] not in HOSTS:
        return "This page is for its own machine; another name may lead a stranger's page here."
    if request.headers.get("origin") not in (None, f"http://{host}"):
        return "A page of another site asked."
    given = request.query_params.get("token") or request.cookies.get(cookie, "")
    if not _same(given, keys.look):
        return "Open the address that was printed at the start."
    if request.method != "GET" and not _same(request.headers.get(ACTION, ""), keys.act):
        return "Only the page itself may ask for that; load it again."
    return ""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _headed(send: Send, cookie: str, keys: Keys, *, new: bool) -> Send:
    """`send`, with the headers of every answer, and the cookie for who came by the address."""

    async def headed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if new:
                headers.append("set-cookie", f"{cookie}={keys.look}; HttpOnly; SameSite=Strict; "
                                             "Path=/")  # fmt: skip
        await send(message)

    return headed
