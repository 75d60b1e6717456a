"""Training that hides rows is refused where a gradient is not of one row alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from atoll.data.images import open_image
from atoll.errors import PrivacyError
from atoll.local.check import check_rule
from atoll.local.per_example import PerExample
from atoll.local.train import LocalRule
from atoll.local.work import local_training
from atoll.models.classification import class_terms
from atoll.models.images import pixels_of
from atoll.models.locate import locate
from atoll.models.objective import no_terms
from atoll.models.vision import image_classification, load_vision
from tests.support.federation import Site, site
from tests.support.gallery import Gallery
from tests.support.images import COLOURS
from tests.support.models import Zoo
from tests.support.task_sites import image_rows, site_of
from tests.unit.local.test_local_stack_tasks import decoder, dual, encoder

RULE = LocalRule(private=PerExample(1.0, 1.0, lambda context: bytes(32)))


@pytest.mark.parametrize("made", [encoder, decoder, dual])
def test_losses_that_tell_rows_apart(made: Callable[..., Site], zoo: Zoo, gallery: Gallery) -> None:
    there = made(zoo, gallery, train={})
    for use in (
        lambda: local_training(there.bench, rule=RULE),
        lambda: there.train(group_size=2, rule=RULE),
    ):
        with pytest.raises(PrivacyError, match="tells a row from the other rows of its batch"):
            use()
    local_training(there.bench, rule=LocalRule())


def _resnet(gallery: Gallery, **adapter: Any) -> Site:
    base = load_vision(locate(gallery("resnet")), num_labels=3, dtype="float64")
    assert base.processor is not None
    task = image_classification(
        pixels_of(base.processor, base.source), opened=open_image, labels=sorted(COLOURS),
        terms=no_terms,
    )  # fmt: skip
    return site_of(base, task, image_rows(), adapter=adapter, train={"max_steps": 1})


def test_batch_norm_that_trains(gallery: Gallery) -> None:
    there = _resnet(gallery, method="full")
    with pytest.raises(PrivacyError, match="BatchNorm2d layers normalise a row by the other rows"):
        local_training(there.bench, rule=RULE)


def test_batch_norm_that_is_frozen_reads_one_row_at_a_time(gallery: Gallery) -> None:
    there = _resnet(gallery, method="none")
    assert there.built.alone is not None
    seen: list[int] = []
    first = next(m for m in there.base.model.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    trained, failures = there.train(group_size=1, rule=RULE)
    assert not failures
    assert set(trained) == set(there.clients)
    assert set(seen) == {1}


def test_rows_that_share_a_sequence(zoo: Zoo) -> None:
    there = site(zoo, "llama", adapter={"r": 2}, objective={"packing": True})
    with pytest.raises(PrivacyError, match=r"several rows of ada share a sequence.*data\.packing"):
        there.train(group_size=1, rule=RULE)


@pytest.mark.parametrize(
    "terms",
    [
        class_terms(4, restricted=True),
        class_terms(4, logit_adjustment=0.5),
        class_terms(4, weights="balanced-per-client"),
    ],
)
def test_losses_that_count_labels(zoo: Zoo, terms: Any) -> None:
    there = site(zoo, adapter={"r": 2}, objective={"terms": terms})
    with pytest.raises(PrivacyError, match="the loss at ada counts the labels of its rows"):
        there.train(group_size=2, rule=RULE)


def test_nothing_is_refused_where_nothing_is_hidden(zoo: Zoo, gallery: Gallery) -> None:
    there = encoder(zoo, gallery, train={})
    check_rule(there.bench, LocalRule())
    across = replace(there.bench.objective, across=False)
    check_rule(replace(there.bench, objective=across), RULE)
