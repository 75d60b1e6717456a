"""Numbers and sentences for people."""

from __future__ import annotations

import pytest

from atoll.cli.display import seconds_left
from atoll.cli.output import command_line
from atoll.report.words import bytes_text, seconds_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_140_000, "3.1 MB"), (2.5e13, "25.0 TB")],
)
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (59.9, "59.9 s"), (187, "3:07"), (3723, "1:02:03")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_command_can_be_pasted() -> None:
    assert command_line("atoll", "eval", "my runs/a") == "atoll eval 'my runs/a'"


def test_time_left_counts_rounds_and_baselines() -> None:
    assert seconds_left([], num_rounds=4, arms=2) is None
    assert seconds_left([3.0], num_rounds=4, arms=0) == 9.0
    # Each baseline takes as long as all rounds.
    assert seconds_left([2.0, 4.0], num_rounds=4, arms=2) == 6.0 + 2 * 12.0
    assert seconds_left([3.0] * 4, num_rounds=4, arms=0.5) == 6.0


def test_a_round_that_waited_says_nothing_of_the_others() -> None:
    assert seconds_left([7200.0, 2.0], num_rounds=4, arms=0) == 4.0
    assert seconds_left([2.0, 7200.0, 4.0], num_rounds=5, arms=0) == 6.0
    # An evaluation every other round is no waiting.
    assert seconds_left([2.0, 5.0, 2.0, 5.0], num_rounds=6, arms=0) == 7.0
