"""Who may see a page and press its buttons, as requests over a real socket."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from atoll.errors import ConfigError
from atoll.policy import paused
from atoll.ui import View, run_view, served, site_view


@dataclass
class Page:
    """A site's page: its port, token, state folder, and what was noted."""

    port: int
    token: str
    state: Path
    noted: list[str]

    def asks(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        status, text = answer.status, answer.read().decode()
        connection.close()
        return status, text, answer.headers

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"atoll-{self.port}={self.token}"}

    @property
    def act(self) -> str:
        found = re.search(r'name="act" content="([^"]+)"', self.asks("/", headers=self.cookie)[1])
        assert found
        return found[1]


def _opened(address: str, state: Path, noted: list[str]) -> Page:
    parts = urlsplit(address)
    assert parts.hostname == "127.0.0.1"
    assert parts.port is not None
    return Page(parts.port, parse_qs(parts.query)["token"][0], state, noted)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    noted: list[str] = []
    with served(site_view(tmp_path), 0, note=noted.append) as address:
        yield _opened(address, tmp_path, noted)


def test_the_address_opens_the_page_and_its_cookie_keeps_it_open(page: Page) -> None:
    status, text, headers = page.asks(f"/?token={page.token}")
    assert (status, text[:15]) == (200, "<!doctype html>")
    cookie = headers["set-cookie"]
    assert cookie == f"atoll-{page.port}={page.token}; HttpOnly; SameSite=Strict; Path=/"
    assert page.asks("/", headers=page.cookie)[0] == 200
    # The token that opens it stands in no text that a script could read.
    assert page.token not in text


@pytest.mark.parametrize("path", ["/", "/events", "/?token=", "/?token=wrong", "/?token=%C3%A9"])
def test_without_the_token_nothing_is_told(page: Page, path: str) -> None:
    status, text, headers = page.asks(path)
    assert (status, "set-cookie" in headers) == (403, False)
    assert "Open the address" in text
    assert page.asks(path, headers={"Cookie": f"atoll-{page.port}=wrong"})[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "127.0.0.1.evil.example:{}", "0.0.0.0:{}", "evil.example", ""]
)
def test_a_strangers_name_for_this_machine_leads_nowhere(page: Page, host: str) -> None:
    headers = {"Host": host.format(page.port)}
    assert page.asks(f"/?token={page.token}", headers=headers)[0] == 403
    assert (
        page.asks("/pause", "POST", {**headers, **page.cookie, "x-atoll-token": page.act})[0] == 403
    )
    assert not paused(page.state)


def test_this_machines_own_names_do(page: Page) -> None:
    assert page.asks(f"/?token={page.token}", headers={"Host": f"localhost:{page.port}"})[0] == 200


def test_only_the_page_itself_presses_its_buttons(page: Page) -> None:
    act, own = page.act, f"http://127.0.0.1:{page.port}"
    refused = (
        {}, page.cookie, {"x-atoll-token": act}, {**page.cookie, "x-atoll-token": page.token},
        {**page.cookie, "x-atoll-token": act, "Origin": "http://evil.example"},
        {**page.cookie, "x-atoll-token": act, "Origin": "null"},
    )  # fmt: skip
    for headers in refused:
        assert page.asks("/pause", "POST", headers)[0] == 403
    assert not paused(page.state)
    given = {**page.cookie, "x-atoll-token": act, "Origin": own}
    assert page.asks("/pause", "POST", given)[0] == 200
    assert paused(page.state)
    assert page.asks("/resume", "POST", given)[0] == 200
    assert not paused(page.state)
    assert page.asks("/delete", "POST", given)[0] == 404
    assert page.asks("/pause", headers=page.cookie)[0] == 405


def test_nothing_else_is_there_and_nothing_else_may_run(page: Page) -> None:
    for path in ("/docs", "/openapi.json", "/redoc", "/status.json", "/..%2fstatus.json"):
        assert page.asks(path, headers=page.cookie)[0] in (404, 405)
    _, text, headers = page.asks("/", headers=page.cookie)
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; ")
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
    assert nonce
    assert f'<script nonce="{nonce[1]}">' in text
    assert len(re.findall("<script", text)) == 1
    assert not re.search(r"innerHTML|insertAdjacent|eval\(|new Function| on\w+=| style=", text)
    assert not re.search(r"https?://(?!www.w3.org)", text)
    assert nonce[1] not in page.asks("/", headers=page.cookie)[1]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


def test_it_listens_on_this_machine_alone_and_says_where_it_cannot() -> None:
    view = View("server", "fl", lambda: {"status": None})
    with served(view, 0, note=lambda text: None) as address:
        port = urlsplit(address).port
        assert port is not None
        other = socket.gethostbyname(socket.gethostname())
        if not other.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((other, port), timeout=5)
        refused = pytest.raises(ConfigError, match=f"--ui {port}: 127.0.0.1:{port} cannot be used")
        with refused, served(view, port, note=lambda text: None):
            pass


def test_what_goes_wrong_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    noted: list[str] = []

    def broken() -> None:
        raise RuntimeError("no such thing")

    view = View("site", "a", lambda: {"status": None}, {"pause": broken})
    with served(view, 0, note=noted.append) as address:
        page = _opened(address, tmp_path, noted)
        given = {**page.cookie, "x-atoll-token": page.act}
        for _ in range(3):
            assert page.asks("/pause", "POST", given)[0] == 500
        assert page.asks("/", headers=page.cookie)[0] == 200
    assert noted == ["the page failed: RuntimeError: no such thing"]


def test_a_run_is_shown_with_its_rounds_and_only_its_own_process(tmp_path: Path) -> None:
    view = run_view(tmp_path)
    assert view.look() == {"status": None, "metric": None, "rounds": []}
    folder = tmp_path / "federation"
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps({"pid": os.getpid() + 1}))
    assert view.look()["status"] is None
    (folder / "status.json").write_text(json.dumps({"pid": os.getpid()}))
    row = {
        "round": 1, "loss": 0.5, "accuracy": 0.75, "own": 0.75, "bytes_up": 10, "bytes_down": 20,
        "exchanges": 0, "clients": 2, "failures": {}, "seconds": 1.5, "epsilon": None,
    }  # fmt: skip
    (tmp_path / "rounds.jsonl").write_text(json.dumps(row) + "\n" + '{"round": 2, "lo')
    found = view.look()
    assert found["status"] == {"pid": os.getpid()}
    assert found["metric"] == "accuracy"
    assert [(one["round"], one["metric"]) for one in found["rounds"]] == [(1, 0.75)]
    (tmp_path / "rounds.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    assert len(view.look()["rounds"]) == 2
