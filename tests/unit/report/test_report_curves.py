"""Curves by round: which there are, where their points stand, and what they say in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atoll.report.curves import Figure, curves
from atoll.report.read import read_run
from tests.unit.report.html import parsed
from tests.unit.report.scenes import rounds, run_folder, write_lines


def _curves(folder: Path, lines: list[dict[str, Any]]) -> dict[str, Figure]:
    write_lines(folder, lines)
    return {figure.heading: figure for figure in curves(read_run(folder))}


def _points(figure: Figure, colour: str) -> list[tuple[float, float]]:
    return [
        (float(use.attributes["x"]), float(use.attributes["y"]))
        for group in parsed(figure.svg).every("g")
        if "clip-path" in group.attributes  # The legend's own stand outside.
        for use in group.every("use")
        if f"fill: var(--{colour})" in use.attributes["style"]
    ]


def _letters(figure: Figure) -> list[str]:
    return [text.text for text in parsed(figure.svg).every("text")]


def test_each_curve_says_where_it_begins_and_ends(tmp_path: Path) -> None:
    found = _curves(run_folder(tmp_path / "run"), rounds(4))
    assert {heading: figure.text for heading, figure in found.items()} == {
        "Accuracy": "common test set: 0.500 in round 0, 0.750 in round 4; own held-out rows: 0.400 "
        "in round 0, 0.650 in round 4; local only: 0.500; pooled: 0.844",
        "Training loss": "mean over the cohort: 1.000 in round 1, 0.250 in round 4",
        "Bytes so far": "clients to server: 1.0 MB in round 0, 5.0 MB in round 4; server to "
        "clients: 2.0 MB in round 0, 10.0 MB in round 4",
        "Time of a round": "one round: 1.5 s in round 0, 1.5 s in round 4",
    }
    assert "best" in _letters(found["Accuracy"])


def test_points_stand_in_proportion(tmp_path: Path) -> None:
    lines = rounds(4)
    for line, loss in zip(lines[1:], (4.0, 1.0, 2.0, 3.0), strict=True):
        line["loss"] = loss
    found = _curves(run_folder(tmp_path / "run"), lines)
    points = _points(found["Training loss"], "federated")
    x, y = [[point[axis] for point in points] for axis in (0, 1)]
    step = x[1] - x[0]
    assert step > 0
    assert [place - x[0] for place in x] == pytest.approx([0, step, 2 * step, 3 * step], abs=0.01)
    # Up is less in SVG: 1 stands lowest, and 2 and 3 at a third and two thirds of the way to 4.
    scale = (y[1] - y[0]) / 3
    assert scale > 0
    assert [y[1] - place for place in y] == pytest.approx(
        [3 * scale, 0, scale, 2 * scale], abs=0.01
    )


def test_bytes_and_time_start_from_zero(tmp_path: Path) -> None:
    lines = [{**line, "seconds": 100.0 + line["round"]} for line in rounds(4)]
    found = _curves(run_folder(tmp_path / "run"), lines)
    assert "0 s" in _letters(found["Time of a round"])
    assert "0 B" in _letters(found["Bytes so far"])
    up, down = (_points(found["Bytes so far"], colour) for colour in ("federated", "pooled"))
    # Twice the bytes at twice the height; the axis is where nothing was sent.
    (zero,) = {round(2 * up[place][1] - down[place][1], 2) for place in range(5)}
    assert zero > up[0][1] > up[4][1]


def test_rounds_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    lines = rounds(4)
    for place in (1, 2, 4):
        lines[place] |= {"accuracy": None, "own": None}
    found = _curves(run_folder(tmp_path / "run", finished=False), lines)["Accuracy"]
    assert found.text == (
        "common test set: 0.500 in round 0, 0.688 in round 3; own held-out rows: 0.400 in round 0, "
        "0.588 in round 3"
    )
    assert len(_points(found, "federated")) == 2


def test_what_was_never_measured_is_not_drawn(tmp_path: Path) -> None:
    lines = [
        {**line, "accuracy": None, "own": None, "loss": None, "bytes_up": None, "bytes_down": None}
        for line in rounds(2)
    ]
    assert list(_curves(run_folder(tmp_path / "run"), lines)) == ["Time of a round"]
    assert _curves(tmp_path / "run", []) == {}


def test_without_a_common_test_set_there_is_one_curve(tmp_path: Path) -> None:
    lines = [{**line, "own": line["accuracy"]} for line in rounds(2)]
    figure = _curves(run_folder(tmp_path / "run"), lines)["Accuracy"]
    assert figure.text.startswith("all held-out rows: 0.500 in round 0, 0.625 in round 2; local")


def test_a_metric_that_runs_away_is_drawn(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", finished=False)
    lines = [
        {"round": place, "perplexity": value, "own": value}
        for place, value in enumerate((12.0, 1e30, 1e308))
    ]
    figure = _curves(folder, lines)["Perplexity"]
    assert figure.text.endswith("1e+308 in round 2")
    assert json.dumps(figure.text)
