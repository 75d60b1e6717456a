"""What may stand beside a server's noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from atoll.aggregators import mean, median, on_grid
from atoll.core import (
    Aggregator,
    Algorithm,
    ClientWork,
    Failure,
    Reply,
    Request,
    Stage,
)
from atoll.errors import CompositionError
from atoll.servers import average
from atoll.stages import by_examples, clip, quantise, top_k, uniform, withhold


def _nothing(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
    return iter(())


WORK = ClientWork(
    "train", lambda broadcast: broadcast, _nothing, ("update", "weight", "examples", "metrics")
)
NOISED = replace(average(), name="noised average", noised=("update",))
SUM = on_grid(step=2.0**-10)


def _built(*stages: Stage, work: ClientWork = WORK, aggregator: Aggregator = SUM) -> Algorithm:
    return Algorithm("fedavg", work, stages, aggregator, NOISED)


@pytest.mark.parametrize(
    ("stages", "work"),
    [
        ((uniform(), withhold(), clip(norm=1.0)), WORK),
        ((uniform(), withhold(), top_k(fraction=0.5), clip(norm=1.0)), WORK),
        ((uniform(), withhold()), replace(WORK, bounded=("update",))),
    ],
)
def test_all_that_leaves_is_bounded_or_says_nothing(
    stages: tuple[Stage, ...], work: ClientWork
) -> None:
    if any(stage.name == "top_k" for stage in stages):
        stages = tuple(replace(s, packs=False) for s in stages)
    assert _built(*stages, work=work).server.noised == ("update",)


@pytest.mark.parametrize(
    ("stages", "work", "aggregator", "words"),
    [
        ((uniform(), withhold()), WORK, SUM, ["channel 'update'", "put 'clip' there"]),
        ((withhold(), clip(norm=1.0)), WORK, SUM, ["channel 'weight'", "leaves clients as it is"]),
        ((uniform(), clip(norm=1.0)), WORK, SUM, ["channel 'examples'", "noised average"]),
        (
            (by_examples(), withhold(), clip(norm=1.0)), WORK, SUM,
            ["stage 'by_examples'", "aggregator 'on_grid'", "use stage 'uniform'"],
        ),
        (
            (by_examples(), withhold(), clip(norm=1.0)), WORK, replace(SUM, weighted=True),
            ["stage 'by_examples'", "no bound holds", "noised average", "use stage 'uniform'"],
        ),
        (
            (uniform(), withhold(), clip(norm=1.0)), WORK, mean(),
            ["aggregator 'mean'", "divides by what came", "noised average", "use 'on_grid'"],
        ),
        (
            (uniform(), withhold(), clip(norm=1.0)), WORK, median(),
            ["aggregator 'median'", "use 'on_grid'"],
        ),
        (
            (uniform(), withhold(), clip(norm=1.0), quantise(dtype="bfloat16")), WORK, SUM,
            ["channel 'update'", "no bound", "put 'clip' there"],
        ),
        (
            (uniform(), withhold(), clip(norm=1.0)),
            replace(WORK, channels=(*WORK.channels, "control")), SUM,
            ["channel 'control'", "leaves clients as it is", "as 'fedavg'"],
        ),
    ],
)  # fmt: skip
def test_what_would_be_in_the_open_is_refused(
    stages: tuple[Stage, ...], work: ClientWork, aggregator: Aggregator, words: list[str]
) -> None:
    with pytest.raises(CompositionError) as caught:
        _built(*stages, work=work, aggregator=aggregator)
    assert all(word in str(caught.value) for word in words), caught.value


def test_without_noise_nothing_of_this_is_asked() -> None:
    assert Algorithm("fedavg", WORK, (by_examples(),), mean(), average()).server.noised == ()
