"""A rule over secure sums of groups: the rule over the groups' plain means, and what it is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.aggregators import grouped
from atoll.config import Call
from atoll.core import (
    Algorithm,
    Channel,
    ClientWork,
    Context,
    Failure,
    Payload,
    Reply,
    Report,
    Request,
)
from atoll.core.check import check
from atoll.errors import CompositionError, QuorumError
from atoll.protection.groups import Apart, groups_of
from atoll.protection.outside import Outside
from atoll.protection.secure import Party, Secure, masks
from atoll.protection.speaking import SPEAKING, speaking
from atoll.protection.summed import Summed
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.secagg import Held, Identity, Member, Terms, most_bits, roster_verifier
from atoll.servers import average
from atoll.stages import uniform
from tests.unit.protection.test_secure import Wire, _run

NAMES = tuple(f"c{number:02}" for number in range(16))
SIZE, BOUND = 3, 4.0
LIKE: Payload = {
    "update": Channel({"w": torch.zeros(3, 7), "v": torch.zeros(7)}, "mean", weight="weight"),
    "weight": Channel({"value": torch.tensor(0.0)}, "sum"),
    "metrics": Channel({"loss": torch.tensor(0.0)}, "mean", weight="weight"),
}
IDENTITIES = {name: Identity.new() for name in NAMES}
VERIFY = roster_verifier({name: one.public for name, one in IDENTITIES.items()})
HERE = Context(1, "toy", 1, 1, NAMES, len(NAMES))


def _update(name: str) -> torch.Tensor:
    draw = torch.Generator().manual_seed(NAMES.index(name))
    return torch.rand(3, 7, generator=draw) * 2 - 1


def _work(liars: Sequence[str]) -> ClientWork:
    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            name = request.context.client
            update = torch.full((3, 7), 1e9) if name in liars else _update(name)
            loss = torch.tensor(float(NAMES.index(name)))
            yield Reply(name, {
                "update": LIKE["update"].with_tree({"w": update, "v": 2 * update[0]}),
                "weight": Channel({"value": torch.tensor(1.0)}, "sum"),
                "metrics": LIKE["metrics"].with_tree({"loss": loss}),
            })  # fmt: skip

    return ClientWork("toy", lambda broadcast: LIKE, work, ("update", "weight", "metrics"))


def _algorithms(
    rule: str = "median", liars: Sequence[str] = (), **arguments: object
) -> tuple[dict[str, Algorithm], Secure]:
    aggregator = grouped(rule=Call(rule, arguments), size=SIZE)
    assert aggregator.rule is not None
    members = {name: Member(name, one.sign, VERIFY, Held()) for name, one in IDENTITIES.items()}
    ranges = {"update": BOUND, "weight": 1.0, "metrics": 20.0}
    summed = Summed(LIKE, ranges, undivided=False, most=2 * SIZE - 1)
    terms = Terms(corrupt=0, dropping=0, floor=2)
    secure = Secure(summed, terms, apart=Apart(SIZE, aggregator.rule), run="ours")
    party = Party(secure, members.__getitem__, Outside(print, 1))
    stages = (uniform(), masks(secure, party, VERIFY))
    toy = Algorithm("toy", _work(liars), stages, aggregator, average())
    return {"toy": toy, SPEAKING: speaking(party.says)}, secure


def _wire(algorithms: dict[str, Algorithm], *lost: tuple[str, str]) -> Wire:
    return Wire(InProcess(NAMES, algorithms, memory_store()), frozenset(lost))


def _one_round(
    algorithms: dict[str, Algorithm], *lost: tuple[str, str]
) -> tuple[torch.Tensor, Report]:
    report = _run(algorithms, _wire(algorithms, *lost), rounds=1, cohort=len(NAMES))[-1]
    return report.position.server["adapter"]["w"], report


def _means(groups: Sequence[Sequence[str]]) -> torch.Tensor:
    return torch.stack([torch.stack([_update(n) for n in group]).mean(0) for group in groups])


GRID = BOUND / 2 ** (most_bits(2 * SIZE - 1) - 3)
"""More than a step of the grid, whose power of 2 is above bound / 2^(bits - 1)."""
MEDIAN = lambda means: means.sort(0).values[len(means) // 2]  # noqa: E731
TRIMMED = lambda means: means.sort(0).values[1:-1].mean(0)  # noqa: E731


@pytest.mark.parametrize(
    ("rule", "arguments", "written_out"),
    [("median", {}, MEDIAN), ("trimmed_mean", {"fraction": 0.2}, TRIMMED)],
)
def test_the_rule_over_secure_sums_is_the_rule_over_plain_means(
    rule: str, arguments: dict[str, object], written_out: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    algorithms, secure = _algorithms(rule, **arguments)
    found, report = _one_round(algorithms)
    groups = secure.groups(HERE)
    assert [len(group) for group in groups] == [4, 3, 3, 3, 3]
    assert torch.allclose(found, written_out(_means(groups)), atol=GRID)
    (exchange,) = report.exchanges
    assert exchange.failures == ()
    assert exchange.metrics["loss"] == pytest.approx(7.5, abs=1e-5)


def test_a_group_with_a_liar_is_outvoted_and_moves_a_mean() -> None:
    """Each liar puts the whole range into its group's sum."""
    honest_groups = _algorithms()[1].groups(HERE)
    liars = [honest_groups[0][0], honest_groups[3][1]]
    found, _ = _one_round(_algorithms("median", liars)[0])
    honest = _means([honest_groups[at] for at in (1, 2, 4)])
    assert (found >= honest.min(0).values - GRID).all()
    assert (found <= honest.max(0).values + GRID).all()
    moved, _ = _one_round(_algorithms("mean", liars)[0])
    said = [torch.full((3, 7), BOUND) if name in liars else _update(name) for name in NAMES]
    want = torch.stack(said).mean(0).to(moved)
    assert torch.allclose(moved, want, atol=GRID)


@pytest.mark.parametrize("step", ["advert", "shares", "train", "signature", "opening"])
def test_a_group_whose_sum_stays_closed_is_left_out(step: str) -> None:
    algorithms, secure = _algorithms()
    groups = secure.groups(HERE)
    found, report = _one_round(algorithms, *((step, name) for name in groups[1][1:]))
    assert torch.allclose(found, _middle(_means([groups[at] for at in (0, 2, 3, 4)])), atol=GRID)
    (exchange,) = report.exchanges
    assert Counter(failure.client for failure in exchange.failures) == Counter(groups[1])
    assert exchange.closed == ()
    assert set(exchange.folded) == set(NAMES) - set(groups[1])


def _middle(means: torch.Tensor) -> torch.Tensor:
    """The median of four as Atoll has it: the mean of the two in the middle."""
    return means.sort(0).values[1:3].mean(0)


def test_a_rule_that_needs_more_groups_than_are_left_moves_nothing() -> None:
    algorithms, secure = _algorithms("krum", byzantine=1)
    groups = secure.groups(HERE)
    with pytest.raises(QuorumError, match="'krum' needs 5 updates, and 4 came"):
        _one_round(algorithms, *(("train", name) for name in groups[2]))


def test_a_client_is_hidden_among_its_group_alone() -> None:
    algorithms, secure = _algorithms()
    sealing = algorithms["toy"].sealing
    assert sealing is not None
    for group in secure.groups(HERE):
        assert {sealing.among(HERE.at(name)) for name in group} == {len(group)}
        assert {secure.configuration(HERE.at(name)).cohort for name in group} == {
            tuple(sorted(group))
        }
    assert sealing.among(HERE.at("nobody")) == 0


def test_what_the_rule_compares_are_the_groups_of_the_masks() -> None:
    algorithms, _ = _algorithms()
    toy = algorithms["toy"]
    other = grouped(rule=Call("median"), size=SIZE + 1)
    with pytest.raises(CompositionError, match=f"the sum of each group of {SIZE + 1} by itself"):
        check("toy", toy.client, toy.stages, other)
    with pytest.raises(CompositionError, match="looks at single updates"):
        check("toy", toy.client, toy.stages, replace(toy.aggregator, group=1))


@given(st.integers(2, 9), st.integers(0, 60), st.integers(0, 5), st.randoms())
def test_groups_are_a_cohort_once_each_and_none_is_small(
    size: int, more: int, number: int, random: object
) -> None:
    cohort = [f"site {place}" for place in range(size + more)]
    groups = groups_of("run", number, cohort, size)
    assert sorted(name for group in groups for name in group) == sorted(cohort)
    sizes = [len(group) for group in groups]
    assert size <= min(sizes) <= max(sizes) <= min(min(sizes) + 1, 2 * size - 1)
    random.shuffle(cohort)  # type: ignore[attr-defined]
    assert groups_of("run", number, cohort, size) == groups


def test_groups_are_others_each_round_and_run_and_anyone_may_be_with_anyone() -> None:
    drawn = [groups_of(run, number, NAMES, 4) for run in "ab" for number in range(40)]
    assert len({frozenset(map(frozenset, groups)) for groups in drawn}) == 80
    together = Counter(
        other for groups in drawn for group in groups if "c00" in group for other in group
    )
    # Three of fifteen others each time: 16 of 80, with a deviation of 3.6.
    assert all(3 <= together[name] <= 35 for name in NAMES[1:])
    with pytest.raises(QuorumError, match="cohort of 3 is smaller than a group"):
        groups_of("a", 1, NAMES[:3], 4)
