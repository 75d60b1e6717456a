"""What a terminal shows while a run goes on."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from atoll.cli.display import Display
from atoll.runs.lines import RoundLine
from tests.support.models import Zoo
from tests.support.scenes import scene

LINE = RoundLine(
    round=1, loss=0.5, metric=0.25, own=0.25, bytes_up=600, bytes_down=900, exchanges=0, clients=5,
    failures={}, seconds=2.0,
)  # fmt: skip


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
