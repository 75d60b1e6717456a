"""What a run says of a round that went wrong: nothing of who was in a secret cohort."""

from __future__ import annotations

from atoll.core import Exchange, Failure, Position, Report
from atoll.runs.lines import troubles

FAILED = (
    Failure("ada", "payload", "a value is not finite"),
    Failure("bob", "worker", "bob's process died"),
)


def _report(kind: str = "round") -> Report:
    exchange = Exchange(
        "train", kind, ("ada", "bob", "cy"), FAILED, {}, {}, 0, 0, {"bob": 1, "cy": 1},
        closed=("ada, who holds the key of this sum, does not answer",),
    )  # fmt: skip
    return Report(3, Position({}), (exchange,))


def test_failures_in_a_secret_cohort_are_counted() -> None:
    said = list(troubles(_report(), secret=True))
    assert said == ["the sum was asked for again", "2 clients failed (payload, worker)"]
    assert not any(name in one for one in said for name in ("ada", "bob", "cy"))


def test_a_cohort_that_nobody_of_was_asked_did_not_fail() -> None:
    failed = tuple(Failure(name, "unasked", "nobody was asked: too few") for name in ("ada", "bob"))
    exchange = Exchange("train", "round", ("ada", "bob"), failed, {}, {}, 0, 0, {})
    (said,) = troubles(Report(3, Position({}), (exchange,)), secret=True)
    assert said == "nobody was asked: a cohort that is too small for a sum counts as nobody"


def test_others_are_told_by_name() -> None:
    assert list(troubles(_report(), secret=False)) == [
        "the sum was asked for again: ada, who holds the key of this sum, does not answer",
        "ada is left out: a value is not finite",
        "bob is counted, and failed: bob's process died",
    ]
    assert "ada is left out: a value is not finite" in troubles(_report("exchange"), secret=True)
