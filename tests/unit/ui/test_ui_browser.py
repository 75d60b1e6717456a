"""The pages in a real browser without a screen."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atoll.disk.files import append_line
from atoll.policy import paused
from atoll.status import SERVER, SITE, Board
from atoll.ui import run_view, served, site_view
from tests.support.browser import MISSING, browsing
from tests.support.working import FACTS, LEFT

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with browsing() as found:
        yield found


def _text(browser: Chrome, selector: str) -> str:
    return str(browser.execute_script(
        "const one = document.querySelector(arguments[0]); return one ? one.innerText : '';",
        selector,
    ))  # fmt: skip


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@contextmanager
def _unbroken(browser: Chrome) -> Iterator[None]:
    """Nothing is complained about, and nothing else is asked for than of the page's own server."""
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    yield
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def _as_wide_as_the_screen(browser: Chrome) -> bool:
    return bool(browser.execute_script(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    ))  # fmt: skip


def test_a_clients_change_shows_without_a_reload(browser: Chrome, tmp_path: Path) -> None:
    facts: dict[str, Any] = copy.deepcopy(FACTS)
    facts["clients"][0]["name"] = "<b>hospital-a</b>"
    for n in range(4):
        line = {"round": n, "loss": 1 / (n + 1), "accuracy": n / 10, "bytes_up": 5, "seconds": 1}
        append_line(tmp_path / "rounds.jsonl", line)
    with (
        Board(tmp_path / "federation", SERVER) as board,
        served(run_view(tmp_path), 0, note=board.note) as address,
        _unbroken(browser),
    ):
        board.show(lambda: facts)
        browser.get(address)
        _until(lambda: _text(browser, "#state") == "waiting for clients")
        assert "token" not in browser.current_url
        browser.execute_script("window.same = true")
        row = "[data-client='<b>hospital-a</b>']"
        assert "working" in _text(browser, row)
        assert "<b>hospital-a</b>" in _text(browser, row)
        assert "1 of 2 have answered" in _text(browser, "#lead")
        assert "rule [hours]: no" in _text(browser, "[data-client=hospital-b] .fault")
        assert len(browser.find_elements("css selector", ".chart path")) == 4
        assert "accuracy: 0.3" in _text(browser, "main")

        changed = copy.deepcopy(facts)
        changed["clients"][0]["state"] = "done"
        changed["asked"]["answered"] = 2
        facts = changed
        board.note("hospital-c is refused: its key is not of a client that takes part")
        _until(lambda: "answered" in _text(browser, row))
        _until(lambda: _text(browser, "#state") == "running")
        _until(lambda: "hospital-c is refused" in _text(browser, "main"))
        assert browser.execute_script("return window.same")


@pytest.mark.parametrize("width", [360, 1280])
def test_the_pause_button_pauses(browser: Chrome, tmp_path: Path, width: int) -> None:
    def facts() -> dict[str, Any]:
        return {**LEFT, "paused": paused(tmp_path)}

    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    with (
        Board(tmp_path, SITE) as board,
        served(site_view(tmp_path), 0, note=board.note) as address,
        _unbroken(browser),
    ):
        board.show(facts)
        browser.get(address)
        _until(lambda: _text(browser, "#state") == "ready")
        assert _text(browser, "h1") == "hospital-a"
        assert "metrics" in _text(browser, ".policy")
        assert "400.0 kB" in _text(browser, ".scroll")
        assert _as_wide_as_the_screen(browser)
        button = browser.find_element("id", "button")
        assert button.text == "Pause"
        button.click()
        _until(lambda: _text(browser, "#state") == "paused")
        assert paused(tmp_path)
        _until(lambda: button.is_enabled() and button.text == "Resume")
        button.click()
        _until(lambda: _text(browser, "#state") == "ready")
        assert not paused(tmp_path)
        # A pause from elsewhere shows, too.
        (tmp_path / "paused").touch()
        _until(lambda: _text(browser, "#state") == "paused")


def test_a_wrong_token_and_a_foreign_name_show_nothing(browser: Chrome, tmp_path: Path) -> None:
    with served(site_view(tmp_path), 0, note=lambda text: None) as address:
        place = address.partition("?")[0]
        for wrong in (place, f"{place}?token=wrong"):
            browser.get(wrong)
            assert "Open the address that was printed" in _text(browser, "body")
        browser.get(address.replace("127.0.0.1", "evil.localhost"))
        assert "for its own machine" in _text(browser, "body")


def test_a_page_whose_process_has_ended_says_so(browser: Chrome, tmp_path: Path) -> None:
    with Board(tmp_path, SITE) as board:
        board.show(lambda: LEFT)
        with served(site_view(tmp_path), 0, note=board.note) as address:
            browser.get(address)
            _until(lambda: _text(browser, "#state") == "ready")
            # The page's own clock is put forward; its server is gone.
            browser.execute_script("const now = Date.now; Date.now = () => now() + 20000")
        _until(lambda: _text(browser, "#state") == "no contact")
