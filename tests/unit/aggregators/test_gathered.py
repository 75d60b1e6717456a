"""What every robust rule does alike: other channels, nobody, one client, too few, odd values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from atoll.aggregators import (
    bulyan,
    centred_clipping,
    geometric_median,
    krum,
    mean,
    median,
    multi_krum,
    norm_bound,
    trimmed_mean,
)
from atoll.aggregators.gathered import whole
from atoll.aggregators.groups import across_groups, across_neighbours
from atoll.core import Aggregator, Channel, Payload
from atoll.errors import ConfigError, QuorumError
from tests.support.folds import fold, seeded_reply

RULES = [
    median(), trimmed_mean(fraction=0.2), krum(byzantine=1), multi_krum(byzantine=1),
    bulyan(byzantine=1), geometric_median(), centred_clipping(), norm_bound(norm=100.0),
    across_groups(median(), size=2), across_neighbours(krum(byzantine=1), byzantine=1),
]  # fmt: skip
NEEDED = {"krum": 5, "multi_krum": 5, "bulyan": 7, "grouped": 2, "nnm": 5}
ENOUGH = 9
PATIENT = [rule for rule in RULES if rule.name not in NEEDED]
"""Rules that make something of one update."""


@pytest.fixture(params=RULES, ids=lambda rule: rule.name)
def rule(request: pytest.FixtureRequest) -> Aggregator:
    found: Aggregator = request.param
    return found


def _updates(values: list[torch.Tensor]) -> list[Payload]:
    return [{"update": Channel({"a": value})} for value in values]


def _result(rule: Aggregator, values: list[torch.Tensor]) -> torch.Tensor:
    replies = _updates(values)
    return fold(replies, rule, replies[0])["update"].tree["a"]


def test_facts(rule: Aggregator) -> None:
    assert not rule.linear
    assert not rule.weighted
    assert rule.least == NEEDED.get(rule.name, 1)
    assert rule.group == (2 if rule.name == "grouped" else 1)
    assert (mean().linear, mean().weighted, mean().least, mean().group) == (True, True, 1, 1)


def test_other_channels_are_as_in_a_mean(rule: Aggregator) -> None:
    replies = [seeded_reply(k, weight=w) for k, w in enumerate([5.0, 1.0, 14.0, *[2.0] * 6])]
    got, plain = fold(replies, rule), fold(replies, mean())
    assert got.keys() == plain.keys() == {"update", "weight", "examples", "metrics"}
    for name in ("weight", "examples", "metrics"):
        torch.testing.assert_close(got[name].tree, plain[name].tree, rtol=0, atol=0)
        assert got[name].reduce == plain[name].reduce
    assert float(got["metrics"].tree["loss"]) == pytest.approx(
        (1 * 1 + 14 * 2 + 2 * (3 + 4 + 5 + 6 + 7 + 8)) / 32
    )


def test_a_client_that_says_it_weighs_more_does_not(rule: Aggregator) -> None:
    plain, loud = (
        fold([seeded_reply(k, weight=1e6 if k == 2 else w) for k in range(ENOUGH)], rule)
        for w in (1.0, 3.0)
    )
    even = fold([seeded_reply(k) for k in range(ENOUGH)], rule)
    for found in (plain, loud):
        torch.testing.assert_close(found["update"].tree, even["update"].tree, rtol=0, atol=0)


def test_nobody_gives_zeros(rule: Aggregator) -> None:
    empty = fold([], rule)
    assert torch.equal(empty["update"].tree["a"], torch.zeros(2, 3))
    assert torch.equal(empty["update"].tree["b"], torch.zeros(()))
    assert float(empty["weight"].tree["value"]) == 0.0


@pytest.mark.parametrize("rule", PATIENT, ids=lambda rule: rule.name)
def test_one_client_is_its_own_result(rule: Aggregator) -> None:
    alone = fold([seeded_reply(4, weight=3.0)], rule)
    torch.testing.assert_close(alone["update"].tree, seeded_reply(4)["update"].tree)


@pytest.mark.parametrize("byzantine", [0, 1, 2])
@pytest.mark.parametrize("make", [krum, multi_krum, bulyan])
def test_with_too_few_updates_there_is_no_result(
    make: Callable[..., Aggregator], byzantine: int
) -> None:
    rule = make(byzantine=byzantine)
    least = {(krum, 1): 5, (krum, 2): 7, (multi_krum, 1): 5, (multi_krum, 2): 7,
             (bulyan, 1): 7, (bulyan, 2): 11}.get((make, byzantine), 1)  # fmt: skip
    fold([seeded_reply(k) for k in range(least)], rule)
    for count in range(1, least):
        with pytest.raises(QuorumError) as caught:
            fold([seeded_reply(k) for k in range(count)], rule)
        assert str(caught.value) == (
            f"aggregator '{rule.name}' needs {least} updates, and {count} came; raise "
            f"federation.min_clients to {least}, so that a round waits for them, or let the "
            "aggregator expect fewer"
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_poisons_nothing(rule: Aggregator, value: float) -> None:
    """As if that client had not answered; a bound on norms counts it as zero."""
    honest = [seeded_reply(k) for k in range(ENOUGH)]
    tree = {"a": torch.ones(2, 3), "b": torch.tensor(value)}
    odd = {**seeded_reply(20), "update": Channel(tree, weight="weight")}
    found = fold([*honest[:4], odd, *honest[4:]], rule)["update"].tree
    without = fold(honest, rule)["update"].tree
    share = ENOUGH / (ENOUGH + 1) if rule.name == "norm_bound" else 1
    for name, expected in without.items():
        torch.testing.assert_close(found[name], share * expected)
    poisoned = fold([*honest, odd], mean())["update"].tree["b"]
    assert not bool(torch.isfinite(poisoned))


def test_only_what_is_not_finite_is_nobody(rule: Aggregator) -> None:
    nothing = _result(rule, [torch.tensor([math.nan, 1.0])] * 2)
    assert torch.equal(nothing, torch.zeros(2))


def test_no_payload_is_changed(rule: Aggregator) -> None:
    replies = [seeded_reply(k) for k in range(ENOUGH)]
    for told in (replies, replies[1:], replies[::-1]):
        fold(told, rule)["update"].tree["a"].zero_()
    for k, reply in enumerate(replies):
        for name, channel in seeded_reply(k).items():
            torch.testing.assert_close(reply[name].tree, channel.tree, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_combined_in_float32(rule: Aggregator, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(3)
    values = [torch.randn(40, generator=draw).to(dtype) for _ in range(ENOUGH)]
    found = _result(rule, values)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, _result(rule, [value.float() for value in values]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_at_the_end_of_the_range(rule: Aggregator, dtype: torch.dtype) -> None:
    """One client sends the largest number that there is; the squares of float64's overflow."""
    draw = torch.Generator().manual_seed(3)
    values = [torch.randn(4, generator=draw, dtype=dtype) for _ in range(ENOUGH)]
    values[3] = torch.tensor([1, -1, 0.5, 1], dtype=dtype) * torch.finfo(dtype).max
    found = _result(rule, values)
    assert found.dtype == dtype
    assert float(found.abs().max()) < 60


@pytest.mark.parametrize("count", [3, 8, 9])
def test_more_than_were_expected_cannot_be_measured(rule: Aggregator, count: int) -> None:
    """There is a result all the same, which is a number, or too little for a rule in a rule."""
    draw = torch.Generator().manual_seed(3)
    values = [torch.randn(4, generator=draw, dtype=torch.float64) for _ in range(ENOUGH)]
    for k in range(count):
        values[k] = values[k] * 1e200
    if (rule.name, count) == ("nnm", 8):
        with pytest.raises(QuorumError, match="'krum' needs 5 updates, and 1 came"):
            _result(rule, values)
        return
    assert bool(torch.isfinite(_result(rule, values)).all())


@pytest.mark.parametrize("share", [1e30, 1e-30])
def test_all_values_may_be_large_or_small(rule: Aggregator, share: float) -> None:
    if rule.name in ("norm_bound", "geometric_median", "grouped"):
        pytest.skip("it has a size of its own, or draws from what comes")
    draw = torch.Generator().manual_seed(3)
    values = [torch.randn(4, generator=draw) for _ in range(ENOUGH)]
    once = _result(rule, values)
    torch.testing.assert_close(_result(rule, [share * value for value in values]) / share, once)


def test_a_tensor_without_values() -> None:
    for rule in RULES:
        assert _result(rule, [torch.zeros(0, 3)] * ENOUGH).shape == (0, 3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: krum(byzantine=-1),
         "aggregator 'krum': byzantine is -1; give a whole number of 0 or more"),
        (lambda: multi_krum(byzantine=-2),
         "aggregator 'multi_krum': byzantine is -2; give a whole number of 0 or more"),
        (lambda: multi_krum(byzantine=0, selected=0),
         "aggregator 'multi_krum': selected is 0; give a whole number of 1 or more"),
        (lambda: bulyan(byzantine=-1),
         "aggregator 'bulyan': byzantine is -1; give a whole number of 0 or more"),
        (lambda: geometric_median(smoothing=0.0),
         "aggregator 'geometric_median': smoothing is 0.0; give a number above 0"),
        (lambda: geometric_median(iterations=0),
         "aggregator 'geometric_median': iterations is 0; give a whole number of 1 or more"),
        (lambda: centred_clipping(radius=math.nan),
         "aggregator 'centred_clipping': radius is nan; give a number above 0"),
        (lambda: centred_clipping(iterations=0),
         "aggregator 'centred_clipping': iterations is 0; give a whole number of 1 or more"),
        (lambda: norm_bound(norm=math.inf),
         "aggregator 'norm_bound': norm is inf; give a number above 0"),
        (lambda: across_groups(mean(), size=1),
         "aggregator 'grouped': size is 1; give a whole number of 2 or more"),
        (lambda: across_neighbours(mean(), byzantine=-1),
         "aggregator 'nnm': byzantine is -1; give a whole number of 0 or more"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing(make: Callable[[], Aggregator], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == said


def test_what_is_allowed_is_not_refused() -> None:
    whole(0, name="byzantine", aggregator="krum")
    whole(3, name="selected", aggregator="multi_krum", least=3)
