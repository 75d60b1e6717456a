"""The page itself, what it hears, and what its buttons do."""

from __future__ import annotations

import asyncio
import html
import secrets
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from atoll.ui.guard import Keys
from atoll.ui.views import View

__all__ = ["page"]

LOOK = 0.5
"""Seconds between two looks at what has changed."""


def page(view: View, keys: Keys) -> FastAPI:
    """An application that shows a view, and sends it anew whenever it changes."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    text = (files("atoll.ui") / "page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse)
    async def shown() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        given = {"NONCE": nonce, "ACT": keys.act, "KIND": view.kind, "NAME": view.name}
        filled = text
        for name, value in given.items():
            filled = filled.replace(f"%{name}%", html.escape(value))
        return HTMLResponse(filled, headers={"content-security-policy": _policy(nonce)})

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[dict[str, Any]]:
        before = None
        while True:
            found = await run_in_threadpool(view.look)
            if found != before:
                before = found
                yield found
            await asyncio.sleep(LOOK)

    @app.post("/{action}")
    async def act(action: str) -> dict[str, bool]:
        if action not in view.actions:
            raise HTTPException(404)
        await run_in_threadpool(view.actions[action])
        return {"done": True}

    return app


def _policy(nonce: str) -> str:
    """Nothing but what stands in the page, and its own server."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
