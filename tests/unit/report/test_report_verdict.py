"""Did federating help: the sentence, the differences, and each client's gain."""

from __future__ import annotations

import re
from typing import Any

import pytest

from atoll.report.gains import gains
from atoll.report.records import Summary
from atoll.report.verdict import answer, differences, verdict
from tests.unit.report.html import parsed

Pair = tuple[float | None, float | None]


def _summary(metric: str, clients: list[Pair], **more: Any) -> Summary:
    rows = {
        str(i): {"federated": federated, "local": local}
        for i, (federated, local) in enumerate(clients)
    }
    fixed = {"metric": metric, "per_client": rows, "final": 0.8, "baselines": {"local": 0.25}}
    return Summary.model_validate(fixed | more)


def test_federating_helped_where_more_clients_do_better() -> None:
    found = verdict(_summary("accuracy", [(0.9, 0.5), (0.8, 0.5), (0.1, 0.5), (None, 0.5)]))
    assert found == (
        "Federating helped: on their own held-out rows, 2 of 3 clients do better with the "
        "federated model than with their own, 1 does worse; on everyone's test rows it is 0.800 "
        "against 0.250."
    )


@pytest.mark.parametrize(
    ("metric", "more"), [("perplexity", {}), ("rmse", {"higher_is_better": False})]
)
def test_a_lower_number_may_be_better(metric: str, more: dict[str, Any]) -> None:
    found = verdict(_summary(metric, [(9.0, 5.0), (8.0, 5.0), (3.0, 5.0)], **more))
    assert found is not None
    start = "Federating did not help: on their own held-out rows, 1 of 3 clients does better"
    assert found.startswith(start)
    assert found.endswith("0.80 against 0.25.")


def test_equal_numbers_are_a_draw() -> None:
    summary = _summary("accuracy", [(0.5, 0.5), (0.4, 0.3), (0.3, 0.4)])
    assert answer(summary) == "was a draw"
    assert (verdict(summary) or "").startswith("Federating was a draw: ")


def test_nothing_to_compare_with_gives_no_verdict() -> None:
    assert verdict(_summary("accuracy", [(0.5, None)])) is None
    assert verdict(_summary("accuracy", [])) is None
    assert gains(_summary("accuracy", [(0.5, None)])) is None


def test_a_common_set_without_rows_is_left_out_of_the_sentence() -> None:
    found = verdict(_summary("accuracy", [(0.9, 0.5)], final=None)) or ""
    assert found.endswith("than with their own, 0 do worse.")


def test_differences_stand_with_their_intervals() -> None:
    intervals = {
        "level": 0.9, "federated_minus_local": [0.5, 0.6], "federated_minus_pooled": None,
    }  # fmt: skip
    baselines = {"local": 0.25, "pooled": 0.9}
    summary = _summary("accuracy", [], intervals=intervals, baselines=baselines)
    with_own = _summary("accuracy", [], intervals={"federated": [0.75, 0.875]})
    assert differences(with_own) == ["Federated: 0.800 (95% interval 0.750 to 0.875)."]
    assert differences(summary) == [
        "Federated minus local only: +0.550 (90% interval +0.500 to +0.600)."
    ]
    assert differences(_summary("accuracy", [])) == []


def _gains(*rows: tuple[float, tuple[float, float] | None]) -> Summary:
    found = {f"c{i}": {"gain": gain, "gain_interval": ends} for i, (gain, ends) in enumerate(rows)}
    return Summary.model_validate({"metric": "accuracy", "per_client": found})


def test_clients_are_sorted_and_told_apart_by_their_intervals() -> None:
    found = gains(_gains((0.2, (0.1, 0.3)), (-0.3, (-0.5, -0.1)), (0.1, (-0.1, 0.3)), (0.0, None)))
    assert found is not None
    assert [(row.client, row.kind) for row in found.rows] == [
        ("c1", "worse"), ("c3", "even"), ("c2", "even"), ("c0", "better"),
    ]  # fmt: skip
    assert [found.count(kind) for kind in ("better", "even", "worse")] == [1, 2, 1]
    assert found.text == (
        "Gain in accuracy of the federated model over each client's own, sorted: from −0.300 (c1) "
        "to +0.200 (c0)"
    )


@pytest.mark.parametrize(
    ("test", "kind"), [(1, "even"), (9, "even"), (10, "better"), (None, "even")]
)
def test_very_few_rows_that_agree_prove_nothing(test: int | None, kind: str) -> None:
    row = {"gain": 1.0, "gain_interval": [1.0, 1.0], "test": test}
    found = gains(Summary.model_validate({"per_client": {"ada": row}}))
    assert found is not None
    assert [row.kind for row in found.rows] == [kind]


def test_without_an_interval_the_sign_of_many_rows_tells() -> None:
    rows = {f"c{gain}": {"gain": gain, "test": 10} for gain in (0.2, -0.1, 0.0)}
    rows["one"] = {"gain": 1.0, "test": 1}
    found = gains(Summary.model_validate({"per_client": rows}))
    assert found is not None
    assert [row.kind for row in found.rows] == ["worse", "even", "better", "even"]


def _points(svg: str, colour: str) -> list[tuple[float, float]]:
    """Where the dots of a colour stand: matplotlib places each mark with a `use`."""
    return [
        (float(use.attributes["x"]), float(use.attributes["y"]))
        for group in parsed(svg).every("g")
        if "clip-path" in group.attributes  # The legend's own stand outside.
        for use in group.every("use")
        if f"fill: var(--{colour})" in use.attributes["style"]
    ]


def test_dots_stand_in_proportion_to_the_gains() -> None:
    values = (-0.3, 0.1, 0.2, 0.5)
    found = gains(_gains(*((value, (value - 0.05, value + 0.05)) for value in values)))
    assert found is not None
    assert found.named
    points = _points(found.svg, "worse") + _points(found.svg, "better")
    x = [point[0] for point in points]
    scale = (x[3] - x[0]) / (values[3] - values[0])
    assert scale > 0
    for place, value in zip(x, values, strict=True):
        assert place - x[0] == pytest.approx(scale * (value - values[0]), abs=0.01)
    # The most helped on top, where y is smallest.
    assert [point[1] for point in points] == sorted((point[1] for point in points), reverse=True)


def test_many_clients_are_one_drawing_without_names() -> None:
    found = gains(_gains(*((place / 100, (place / 100 - 0.5, place / 100 + 0.5))
                           for place in range(-60, 61))))  # fmt: skip
    assert found is not None
    assert not found.named
    dots = [_points(found.svg, kind) for kind in ("worse", "even", "better")]
    assert [len(group) for group in dots] == [10, 101, 10]
    labels = {text.text for text in parsed(found.svg).every("text")}
    assert "clients, the least helped first" in labels
    assert not labels & {"c0", "c120"}
    # The intervals of a colour are one element, and do not make a page of hundreds of them slow.
    spans = [
        path.attributes["d"]
        for path in parsed(found.svg).every("path")
        if "stroke: var(--even)" in path.attributes["style"]
        and "opacity" in path.attributes["style"]
    ]
    assert [len(re.findall("M", span)) for span in spans] == [101]
