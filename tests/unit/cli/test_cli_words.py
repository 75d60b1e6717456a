"""Numbers and sentences for people."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.cli.display import seconds_left
from atoll.cli.output import bytes_text, command_line, seconds_text
from atoll.cli.report import verdict


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


def _summary(metric: str, clients: list[tuple[float | None, float | None]]) -> dict[str, Any]:
    rows = {
        str(i): {"federated": federated, "local": local}
        for i, (federated, local) in enumerate(clients)
    }
    return {"metric": metric, "per_client": rows, "final": 0.8, "baselines": {"local": 0.25}}


def test_federating_helped_where_more_clients_do_better() -> None:
    found = verdict(_summary("accuracy", [(0.9, 0.5), (0.8, 0.5), (0.1, 0.5), (None, 0.5)]))
    assert found == (
        "Federating helped: on their own held-out rows, 2 of 3 clients do better with the "
        "federated model than with their own, 1 does worse; on everyone's test rows it is 0.800 "
        "against 0.250."
    )


def test_a_lower_perplexity_is_better() -> None:
    found = verdict(_summary("perplexity", [(9.0, 5.0), (8.0, 5.0), (3.0, 5.0)]))
    assert found is not None
    assert found.startswith("Federating did not help: on their own held-out rows, 1 of 3 clients")
    assert found.endswith("0.80 against 0.25.")


def test_equal_numbers_are_a_draw() -> None:
    found = verdict(_summary("accuracy", [(0.5, 0.5), (0.4, 0.3), (0.3, 0.4)]))
    assert found is not None
    assert found.startswith("Federating was a draw: ")


def test_nothing_to_compare_with_gives_no_verdict() -> None:
    assert verdict(_summary("accuracy", [(0.5, None)])) is None
    assert verdict(_summary("accuracy", [])) is None
