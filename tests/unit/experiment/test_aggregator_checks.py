"""What an experiment with a robust rule is told before it trains: too few clients, ways around."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.config import load
from atoll.core import Context
from atoll.errors import CompositionError, ConfigError, PolicyError
from atoll.experiment.parties import check_sums
from atoll.experiment.setup import Setup, prepare
from atoll.policy import Policy
from tests.support.federation import LABELS
from tests.support.models import Zoo
from tests.support.scenes import scene

MEAN = {"model": {"pooling": "mean"}}


def _scene(folder: Path, zoo: Zoo, federation: Mapping[str, Any], head: str = "train") -> Setup:
    return scene(folder, zoo, adapter={"r": 2, "head": head}, federation=federation, **MEAN)


def _refused(folder: Path, zoo: Zoo, federation: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        _scene(folder, zoo, federation)
    return str(caught.value)


def test_a_cohort_that_is_too_small_for_the_rule(tmp_path: Path, zoo: Zoo) -> None:
    said = _refused(tmp_path, zoo, {"aggregator": {"name": "krum", "byzantine": 2}})
    assert said.endswith(
        "aggregator 'krum' needs the updates of 7 clients as it is set, but a round asks 5; ask "
        "more clients, or lower what it is set to"
    )
    assert said.startswith(str(tmp_path))
    two = {"aggregator": {"name": "grouped", "size": 3, "rule": "median"}, "clients_per_round": 2}
    assert "needs the updates of 3 clients as it is set, but a round asks 2" in _refused(
        tmp_path, zoo, two
    )


def test_rounds_that_count_with_too_few(tmp_path: Path, zoo: Zoo) -> None:
    rule = {"name": "nnm", "byzantine": 1, "rule": "median"}
    assert _refused(tmp_path, zoo, {"aggregator": rule, "min_clients": 2}).endswith(
        "aggregator 'nnm' needs the updates of 3 clients as it is set, but federation.min_clients "
        "is 2, with which a round counts; set it to 3"
    )
    found = _scene(tmp_path, zoo, {"aggregator": rule, "min_clients": 3})
    assert found.program.algorithms["train"].aggregator.name == "nnm"


@pytest.mark.parametrize(
    ("aggregator", "said"),
    [
        ({"name": "krum", "byzantine": -1}, "aggregator 'krum': byzantine is -1; give a whole"),
        ({"name": "grouped", "size": 2, "rule": {"name": "krum"}},
         "federation.aggregator.rule: krum needs byzantine"),
        ({"name": "grouped", "size": 2, "rule": "my_rules:rule"}, "only Atoll's own rules are"),
        ("krmu", 'unknown aggregator "krmu"; did you mean "krum"?'),
    ],
)  # fmt: skip
def test_settings_are_refused_where_they_stand(
    aggregator: object, said: str, tmp_path: Path, zoo: Zoo
) -> None:
    found = _refused(tmp_path, zoo, {"aggregator": aggregator})
    assert said in found
    assert found.startswith(str(tmp_path))


@pytest.mark.parametrize(("algorithm", "channel"), [("scaffold", "control"), ("fednova", "update")])
def test_algorithms_that_a_client_moves_otherwise(
    algorithm: str, channel: str, tmp_path: Path, zoo: Zoo
) -> None:
    with pytest.raises(CompositionError, match=f"'median' limits what one client.*'{channel}'"):
        _scene(tmp_path, zoo, {"algorithm": algorithm, "aggregator": "median"})


@pytest.mark.parametrize(
    ("head", "aggregator", "told"),
    [("ridge", "median", True), ("train", "median", False), ("ridge", None, False)],
)
def test_a_solved_head_is_not_covered(
    head: str, aggregator: str | None, told: bool, tmp_path: Path, zoo: Zoo
) -> None:
    setup = _scene(tmp_path, zoo, {"aggregator": aggregator}, head)
    notes: list[str] = []
    prepare(load(setup.loaded.path), note=notes.append)
    found = [note for note in notes if "not to the head, which is solved from" in note]
    assert len(found) == told


def test_how_many_secure_sums_a_rule_compares_is_told(tmp_path: Path, zoo: Zoo) -> None:
    call = {"name": "grouped", "size": 2, "rule": "median"}
    secure = {"secure_aggregation": True, "min_survivors": 2, "corrupt": 0.0, "dropping": 0.0}
    setup = scene(
        tmp_path, zoo, adapter={"r": 2, "head": "train"}, privacy=secure,
        federation={"aggregator": call, "min_clients": 2}, **MEAN,
    )  # fmt: skip
    notes: list[str] = []
    prepare(load(setup.loaded.path), note=notes.append)
    assert (
        "a round has 2 secure sums of 2 clients or more, and a false client spoils the one that it "
        "is in; 5 outvote a false one better: ask 10 clients or more"
    ) in notes


def test_a_site_is_hidden_among_its_group_and_not_among_the_cohort(
    tmp_path: Path, zoo: Zoo
) -> None:
    call = {"name": "grouped", "size": 2, "rule": "median"}
    secure = {"secure_aggregation": True, "min_survivors": 2, "corrupt": 0.0, "dropping": 0.0}
    setup = scene(
        tmp_path, zoo, adapter={"r": 2, "head": "train"}, privacy=secure,
        federation={"aggregator": call, "min_clients": 2}, **MEAN,
    )  # fmt: skip
    cohort = setup.data.clients
    assert len(cohort) == 5
    for name in cohort:
        at = Context(0, "federated", 1, 0, tuple(cohort), 5, name)
        check_sums(setup, at, Policy(min_cohort=2))
        with pytest.raises(PolicyError, match=r"among [23] clients; it asks for 4"):
            check_sums(setup, at, Policy(min_cohort=4))
    with pytest.raises(PolicyError, match="among 0 clients"):
        check_sums(setup, at.at("nobody"), Policy(min_cohort=2))


def _root(folder: Path, rows: int = 4) -> Path:
    file = folder / "root.jsonl"
    written = [{"text": "moon tide", "label": LABELS[k % len(LABELS)]} for k in range(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in written))
    return file


def test_trust_needs_its_root_and_combines_by_itself(tmp_path: Path, zoo: Zoo) -> None:
    call = {"name": "fltrust", "root": str(tmp_path / "root.jsonl")}
    assert "algorithm 'fltrust': there is no file" in _refused(tmp_path, zoo, {"algorithm": call})
    _root(tmp_path)
    found = _scene(tmp_path, zoo, {"algorithm": call}).program.algorithms["train"]
    assert [stage.name for stage in found.stages] == ["uniform"]
    said = _refused(tmp_path, zoo, {"algorithm": call, "aggregator": "median"})
    assert said.endswith(
        "algorithm 'fltrust' brings an aggregator of its own; leave federation.aggregator out"
    )
    assert "brings a server of its own" in _refused(
        tmp_path, zoo, {"algorithm": call, "server": "adam"}
    )


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        (
            {"noise_multiplier": 1.0},
            "looks at single updates, but under privacy replies are summed",
        ),
        (
            {"secure_aggregation": True, "dropping": 0.0},
            "looks at single updates, which stage 'masks' hides",
        ),
    ],
    ids=["noise", "masks"],
)
def test_trust_sees_updates_and_privacy_hides_them(
    privacy: Mapping[str, Any], said: str, tmp_path: Path, zoo: Zoo
) -> None:
    call = {"name": "fltrust", "root": str(_root(tmp_path))}
    with pytest.raises(CompositionError, match=f"aggregator 'fltrust' .*{said}"):
        scene(
            tmp_path, zoo, adapter={"r": 2, "head": "train"}, federation={"algorithm": call},
            privacy={"clip": 0.5, **privacy}, **MEAN,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("aggregator", "said"),
    [
        ({"name": "krum", "byzantine": 1}, "'krum'.*use a mean, or a rule over the sums of groups"),
        (
            {"name": "grouped", "size": 4, "rule": "median"},
            "'grouped' has groups of 4 clients, each a secure sum: .* needs a cohort of 5",
        ),
    ],
    ids=["krum", "grouped"],
)
def test_rules_under_masks_are_refused_when_they_are_built(
    aggregator: Mapping[str, Any], said: str, tmp_path: Path, zoo: Zoo
) -> None:
    with pytest.raises(CompositionError, match=said):
        scene(
            tmp_path, zoo, adapter={"r": 2, "head": "train"},
            federation={"aggregator": aggregator, "min_clients": 5},
            privacy={"clip": 0.5, "secure_aggregation": True, "dropping": 0.0}, **MEAN,
        )  # fmt: skip


def test_a_site_needs_no_root(tmp_path: Path, zoo: Zoo) -> None:
    """Its rows are clean as far as it knows; the server's stay with the server."""
    root = _root(tmp_path)
    setup = _scene(tmp_path, zoo, {"algorithm": {"name": "fltrust", "root": str(root)}})
    root.unlink()
    own = replace(setup.data, whole=False)
    at_site = prepare(setup.loaded, note=lambda text: None, data=own)
    assert at_site.program.algorithms["train"].name == "fltrust"
    with pytest.raises(ConfigError, match="there is no file"):
        prepare(setup.loaded, note=lambda text: None, data=setup.data)
