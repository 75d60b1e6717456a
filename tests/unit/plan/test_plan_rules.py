"""Plans of runs whose aggregator needs more updates than a rehearsal has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.plan.plan import make_plan
from tests.support.models import Zoo
from tests.support.scenes import scene

SECURE = {"secure_aggregation": True, "min_survivors": 2, "corrupt": 0.0, "dropping": 0.0}


@pytest.mark.parametrize(
    ("aggregator", "privacy"),
    [
        ({"name": "krum", "byzantine": 1}, {}),
        ({"name": "grouped", "size": 2, "rule": "median"}, SECURE),
    ],
    ids=["krum", "secure groups"],
)
def test_a_rule_is_planned_for(
    aggregator: dict[str, Any], privacy: dict[str, Any], zoo: Zoo, tmp_path: Path
) -> None:
    setup = scene(
        tmp_path, zoo, adapter={"r": 2, "head": "train"}, privacy=privacy,
        federation={"num_rounds": 2, "aggregator": aggregator, "min_clients": 5},
        evaluate={"baselines": []},
    )  # fmt: skip
    plan = make_plan(setup, tmp_path)
    assert [one.round for one in plan.rounds] == [0, 1, 2]
    assert plan.rounds[1].clients == 5
    assert plan.seconds is not None
