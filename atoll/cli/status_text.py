"""How a federation's process stands, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atoll.report.words import MISSING, bytes_text, seconds_text, short
from atoll.status import Standing
from atoll.words import counted

__all__ = ["show_standing"]

LONG = 80
"""Characters of an error in a table; JSON has all."""
FEW = 3
"""Refusals that are shown."""
STATES = {"absent": "not connected", "done": "answered"}


def show_standing(found: Standing) -> None:
    """A few lines, and a row for each client of a server."""
    console = Console(highlight=False)
    status = found.status
    console.print("\n".join(_head(found)), markup=False, soft_wrap=True)
    lines = _server(status, alive=found.alive) if status["kind"] == "server" else _site(status)
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    if status.get("clients"):
        console.print()
        console.print(_clients(status))
        console.print()


def _head(found: Standing) -> Iterator[str]:
    status, alive = found.status, found.alive
    state = str(status.get("state"))
    if not alive and state == "running":
        state = f"killed, last seen {_ago(status['time'])} ago"
    elif not alive:
        state += f" {_ago(status['time'])} ago"
    since = f"since {status.get('since')}"
    yield f"{found.path}: {status['kind']} {state}, process {found.pid}, {since}"
    if status.get("why"):
        yield f"failed: {status['why']}"


def _server(status: Mapping[str, Any], *, alive: bool) -> Iterator[str]:
    if status.get("round") is not None:
        yield f"round {status['round']} of {status.get('rounds')} is done"
    asked = status.get("asked")
    if asked and alive:
        yield (
            f"{asked['what']}: {asked['answered']} of {asked['clients']} have answered, "
            f"{asked['quorum']} are needed; asked {_ago(asked['since'])} ago"
        )
    elif status.get("doing") and alive:
        doing = status["doing"]
        yield f"{doing['what']}: {doing['done']} of {doing['total']}"
    yield (
        f"{status.get('connected', 0)} of {status.get('admitted', 0)} connected; "
        f"{bytes_text(status.get('bytes_up', 0))} up, {bytes_text(status.get('bytes_down', 0))} "
        "down since the start"
    )
    yield from _refusals(status)


def _site(status: Mapping[str, Any]) -> Iterator[str]:
    connected, heard = status.get("connected"), status.get("heard")
    where = f"connected since {connected}" if connected else "no message came yet"
    yield f"{status.get('site')} to {status.get('server')}: {where}" + (
        f", the last one {_ago(heard)} ago" if heard else ""
    )
    if status.get("paused"):
        yield "paused; `atoll client resume` goes on"
    if status.get("task"):
        yield f"answering {status['task']} of round {status['round']}"
    answered, refused = status.get("answered"), status.get("refused")
    if answered:
        yield f"last answered {answered['letter']}, {_ago(answered['time'])} ago"
    if refused:
        yield f"last refused, {_ago(refused['time'])} ago: {refused['rule']}: {refused['why']}"
    left = status.get("left")
    if left:
        yield f"{counted(left['messages'], 'message')} with {bytes_text(left['bytes'])} left in all"
    elif "left" in status:
        yield "what leaves is not recorded: a trial without keys (--insecure)"
    yield from _refusals(status)


def _refusals(status: Mapping[str, Any]) -> Iterator[str]:
    for one in status.get("refusals", [])[-FEW:]:
        yield f"{one['time']} {short(one['text'], 2 * LONG)}"


def _clients(status: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in ("client", "state"):
        table.add_column(name)
    for name in ("last heard", "up", "down"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last error")
    for one in status["clients"]:
        error = one["error"]
        table.add_row(
            escape(one["name"]),
            STATES.get(one["state"], one["state"]),
            MISSING if one["heard"] is None else f"{_ago(one['heard'])} ago",
            bytes_text(one["bytes_up"]),
            bytes_text(one["bytes_down"]),
            escape(short(error["message"], LONG)) if error else "",
        )
    return table


def _ago(time: str) -> str:
    """How long ago that was."""
    then = datetime.fromisoformat(time)
    return seconds_text(max(0.0, (datetime.now(UTC) - then).total_seconds()))
