"""A SuperNode's log, as Flower 1.42 writes it, in words for the site."""

from __future__ import annotations

import pytest

from atoll.flower.trouble import in_vain, trouble

ENDED = """\
ERROR :     Exit Code: 305
Failed to initialize the connection to the SuperLink.
{}
The SuperNode could not establish a connection to the SuperLink.
For more information, visit: <https://flower.ai/docs/framework/1.42/en/ref-exit-codes/305.html>
INFO:     Finished server process [7325]
"""


@pytest.mark.parametrize(("said", "meant"), [
    ("[code: 2004] Failed to activate SuperNode.", "does not let this site in"),
    ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer "
     "certificate (_ssl.c:1006)", "not of the CA in ca.pem"),
    ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol (_ssl.c:1006)",
     "a proxy"),
    ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "does not speak TLS"),
])  # fmt: skip
def test_an_end_is_told_by_its_cause(said: str, meant: str) -> None:
    found = trouble(ENDED.format(said).splitlines())
    assert found is not None
    assert meant in found


def test_an_end_of_another_kind_keeps_flowers_words() -> None:
    assert trouble(ENDED.format("something new").splitlines()) is None
    assert trouble([]) is None


def test_nobody_answers_as_long_as_attempts_fail() -> None:
    lines = ["INFO :      Starting Flower SuperNode",
             "WARNING :   Connection attempt failed, retrying in 19.30 seconds"]  # fmt: skip
    assert in_vain(lines, 0.1)
    assert in_vain(lines, 25.0)
    # The attempt after that would have left a line, had it failed too.
    assert not in_vain(lines, 60.0)
    assert not in_vain([*lines, "INFO :      Received successfully"], 0.1)
    assert not in_vain([], 0.1)
