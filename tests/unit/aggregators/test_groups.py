"""Rules inside rules: who is in a group, and what the experiment file may name."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atoll.aggregators import grouped, krum, mean, median, nnm
from atoll.aggregators.groups import across_groups
from atoll.config import Call
from atoll.core import Aggregator, Payload
from atoll.errors import ConfigError, QuorumError
from tests.support.folds import fold, seeded_reply


def _watched() -> tuple[Aggregator, list[Payload]]:
    """A mean, and what it is given."""
    seen: list[Payload] = []
    inner = mean()

    def add(state: dict[str, dict[str, torch.Tensor]], payload: Payload) -> object:
        seen.append(payload)
        return inner.add(state, payload)

    return replace(inner, add=add), seen  # type: ignore[arg-type]


def _one_hot(count: int, sign: float = 1.0) -> list[Payload]:
    """Updates of which each has a value of its own place: a mean tells who is in it."""
    like = seeded_reply(0)
    return [
        {**like, "update": like["update"].with_tree(
            {"a": sign * torch.eye(count)[k], "b": torch.zeros(())}
        )}
        for k in range(count)
    ]  # fmt: skip


def _groups(count: int, size: int, sign: float = 1.0) -> list[tuple[int, ...]]:
    rule, seen = _watched()
    replies = _one_hot(count, sign)
    fold(replies, across_groups(rule, size=size), replies[0])
    found = []
    for payload in seen:
        tree = payload["update"].tree["a"]
        members = tree.nonzero().flatten().tolist()
        torch.testing.assert_close(tree[members], torch.full((len(members),), sign / len(members)))
        found.append(tuple(members))
    return found


@pytest.mark.parametrize(("count", "size"), [(2, 2), (5, 2), (10, 5), (14, 5), (15, 5), (23, 4)])
def test_everyone_is_in_one_group_and_none_is_too_small(count: int, size: int) -> None:
    groups = _groups(count, size)
    assert len(groups) == count // size
    assert sorted(k for group in groups for k in group) == list(range(count))
    assert {size} <= {len(group) for group in groups} or count % size
    assert all(size <= len(group) < 2 * size for group in groups)


def test_too_few_for_one_group() -> None:
    with pytest.raises(QuorumError, match="'grouped' needs 5 updates, and 4 came"):
        _groups(4, 5)
    deep = across_groups(krum(byzantine=2), size=5)
    assert (deep.least, deep.group) == (35, 5)


def test_groups_are_drawn_anew_and_pair_everyone_with_everyone() -> None:
    """Of 200 draws of six clients in pairs each pair is one of fifteen, three at a time."""
    draws = [_groups(6, 2, sign=1.0 + k) for k in range(200)]
    counts = Counter(pair for groups in draws for pair in groups)
    assert len(counts) == 15
    assert all(20 <= count <= 62 for count in counts.values())
    assert draws[7] == _groups(6, 2, sign=8.0)


def test_rules_are_named_with_their_arguments() -> None:
    replies = [seeded_reply(k) for k in range(7)]
    one = grouped(rule=Call("krum", {"byzantine": 0}), size=2)
    other = across_groups(krum(byzantine=0), size=2)
    assert one.name == "grouped"
    for found in (one, other):
        torch.testing.assert_close(
            fold(replies, found)["update"].tree, fold(replies, other)["update"].tree
        )
    assert nnm(rule=Call("median"), byzantine=2).least == 5
    nested = grouped(rule=Call("nnm", {"byzantine": 1, "rule": {"name": "median"}}), size=3)
    assert nested.least == 9


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Call("krmu"), 'krmu"; did you mean "krum"'),
        (Call("krum"), "krum needs byzantine"),
        (Call("krum", {"byzantin": 1}), 'unknown argument "byzantin" of krum; did you mean'),
        (Call("krum", {"byzantine": -1}), "byzantine is -1"),
        (Call("krum", {"byzantine": "two"}), "byzantine"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told(rule: Call, said: str) -> None:
    for make in (lambda: grouped(rule=rule, size=2), lambda: nnm(rule=rule, byzantine=1)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert said in str(caught.value)


def test_code_of_others_is_not_imported_from_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site's policy looks at the names that the file gives, and not into their arguments."""
    (tmp_path / "hidden_rule.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="only Atoll's own rules are named here"):
        grouped(rule=Call("hidden_rule:make"), size=2)
    with pytest.raises(ConfigError, match="only Atoll's own rules are named here"):
        grouped(rule=Call("nnm", {"byzantine": 0, "rule": "hidden_rule:make"}), size=2)
    assert "hidden_rule" not in sys.modules
    assert across_groups(median(), size=2).group == 2
