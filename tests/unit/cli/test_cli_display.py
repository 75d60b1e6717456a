"""What a terminal shows while a run goes on."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from atoll.cli.display import Display
from atoll.data import ClientCount
from atoll.runs.lines import RoundLine
from tests.support.models import Zoo
from tests.support.scenes import scene

LINE = RoundLine(
    round=1, loss=0.5, metric=0.25, own=0.25, bytes_up=600, bytes_down=900, exchanges=0, clients=5,
    failures={}, seconds=2.0,
)  # fmt: skip


@pytest.mark.parametrize(("rows", "told"), [(7, " with 35 training rows"), (0, "")])
def test_rows_of_which_sites_did_not_tell_are_not_counted(
    rows: int, told: str, tmp_path: Path, zoo: Zoo
) -> None:
    setup = scene(tmp_path, zoo, adapter={"r": 2}, federation={"num_rounds": 4})
    counts = dict.fromkeys(setup.data.clients, ClientCount(rows, 0, 0))
    found = io.StringIO()
    with Display(Console(file=found, width=150)) as display:
        display.begin(replace(setup, data=replace(setup.data, counts=counts)))
    assert f"5 clients{told}; 4 rounds of 5 clients" in found.getvalue()


def test_the_bar_tells_round_loss_metric_bytes_and_time_left(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(
        tmp_path, zoo, adapter={"r": 2}, federation={"num_rounds": 4}, evaluate={"baselines": []}
    )
    found = io.StringIO()
    with Display(Console(file=found, force_terminal=True, width=150)) as display:
        display.begin(setup)
        display.round(LINE)
        display.step("round 2: train", 3, 5)
    frames = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found.getvalue()).splitlines()
    last = next(line for line in reversed(frames) if line.strip())
    assert " ".join(last.split()[1:3]) == "round 2/4:"
    assert "training" in last
    assert last.rstrip().endswith(
        "loss 0.500 · accuracy 0.25 · 1.5 kB exchanged · about 6.0 s left"
    )
