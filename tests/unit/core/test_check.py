"""Every composition that is refused, with the whole sentence, and its nearest one that is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from atoll.aggregators import (
    bulyan,
    centred_clipping,
    geometric_median,
    grouped,
    krum,
    mean,
    median,
    multi_krum,
    nnm,
    norm_bound,
    trimmed_mean,
)
from atoll.config import Call
from atoll.core import (
    Aggregator,
    Algorithm,
    ClientWork,
    Context,
    Failure,
    Payload,
    Reply,
    Request,
    Stage,
    Tree,
    check,
)
from atoll.errors import CompositionError, ConfigError
from atoll.servers import average
from atoll.stages import by_examples, clip, quantise, top_k, uniform


def _nothing(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
    return iter(())


def _same(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
    return payload, state


WORK = ClientWork("train", lambda broadcast: broadcast, _nothing)
NOISE = Stage("noise", ("update",), _same, needs_bound=True, dense_floats=True)
MASKS = Stage("masks", ("update", "weight"), _same, decode_at="sum", sums_only=True)


def _refusal(*stages: Stage, aggregator: Aggregator | None = None) -> str:
    with pytest.raises(CompositionError) as caught:
        check("fedavg", WORK, stages, aggregator or mean())
    return str(caught.value)


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (by_examples(),),
        (uniform(), clip(norm=1.0), NOISE),
        (by_examples(), clip(norm=1.0), top_k(fraction=0.1), quantise(dtype="int8")),
        (top_k(fraction=0.1), quantise(dtype="bfloat16"), uniform()),
        (uniform(), clip(norm=1.0), MASKS),
        (clip(norm=2.0), replace(clip(norm=1.0), name="clip again"), NOISE),
    ],
    ids=lambda stages: "+".join(stage.name for stage in stages),
)
def test_what_fits_is_accepted(stages: tuple[Stage, ...]) -> None:
    check("fedavg", WORK, stages, mean())


def test_a_stage_twice() -> None:
    assert _refusal(clip(norm=1.0), clip(norm=2.0)) == "stage 'clip' stands twice in 'fedavg'"


def test_a_channel_that_is_not_sent() -> None:
    assert _refusal(clip(norm=1.0, channels=("control",))) == (
        "stage 'clip' treats channel 'control', which client work 'train' does not send; "
        "it sends update, examples, metrics"
    )


def test_examples_are_read_by_name() -> None:
    silent = replace(WORK, channels=("update",))
    check("fedavg", silent, (uniform(),), mean())
    with pytest.raises(CompositionError, match="'by_examples' treats channel 'examples', which"):
        check("fedavg", silent, (by_examples(),), mean())


def test_weights_exist_after_they_were_set() -> None:
    check("fedavg", WORK, (uniform(), MASKS), mean())
    assert _refusal(MASKS, uniform()) == (
        "stage 'masks' treats channel 'weight', which client work 'train' does not send; "
        "it sends update, examples, metrics"
    )
    check("fedavg", replace(WORK, channels=("update", "weight")), (MASKS, uniform()), mean())


def test_two_weighings() -> None:
    assert _refusal(by_examples(), uniform()) == (
        "stages 'by_examples' and 'uniform' both set the weights of 'fedavg'; keep one"
    )


@pytest.mark.parametrize(
    "aggregator",
    [median(), trimmed_mean(fraction=0.1), krum(byzantine=1), norm_bound(norm=1.0),
     grouped(rule=Call("median"), size=5)],
    ids=lambda a: a.name,
)  # fmt: skip
def test_weights_that_are_ignored(aggregator: Aggregator) -> None:
    assert _refusal(by_examples(), aggregator=aggregator) == (
        "stage 'by_examples' weighs clients by examples, which aggregator "
        f"'{aggregator.name}' ignores; use stage 'uniform'"
    )
    check("fedavg", WORK, (uniform(),), aggregator)


HIDES = (
    "the server learns one sum, and cannot tell whose update spoils it; use a mean, or a rule over "
    "the sums of groups, each under masks of its own: {name: grouped, size: 6, rule: median}, with "
    "groups larger than min_survivors, so that one may stop"
)
BY_ITSELF = [
    median(), trimmed_mean(fraction=0.1), krum(byzantine=1), multi_krum(byzantine=1),
    bulyan(byzantine=1), geometric_median(), centred_clipping(), norm_bound(norm=1.0),
    nnm(rule=Call("median"), byzantine=1),
]  # fmt: skip


@pytest.mark.parametrize("aggregator", BY_ITSELF, ids=lambda a: a.name)
def test_a_rule_for_single_updates_under_sums(aggregator: Aggregator) -> None:
    """An error when it is built, which says what would work."""
    for hiding in (MASKS, replace(MASKS, decode_at="reply")):
        assert _refusal(uniform(), hiding, aggregator=aggregator) == (
            f"aggregator '{aggregator.name}' looks at single updates, which stage 'masks' hides: "
            f"{HIDES}"
        )
    with pytest.raises(CompositionError, match=f"'{aggregator.name}' looks at single updates"):
        Algorithm("fedavg", WORK, (uniform(), MASKS), aggregator, average())


@pytest.mark.parametrize("size", [2, 5, 20])
def test_groups_under_one_sum(size: int) -> None:
    for hiding in (MASKS, replace(MASKS, decode_at="reply")):
        assert _refusal(uniform(), hiding, aggregator=grouped(rule=Call("median"), size=size)) == (
            "stage 'masks' gives one sum of all replies, but aggregator 'grouped' needs the sum "
            f"of each group of {size} by itself; use a mean"
        )


def test_a_stage_that_is_undone_on_sums() -> None:
    summed = replace(MASKS, name="shifted", sums_only=False)
    assert _refusal(uniform(), summed, aggregator=median()) == (
        "stage 'shifted' gives one sum of all replies, but aggregator 'median' needs each reply "
        "by itself; use a mean"
    )
    check("fedavg", WORK, (uniform(), summed), mean())


@pytest.mark.parametrize("aggregator", BY_ITSELF, ids=lambda a: a.name)
def test_a_limit_that_another_way_in_makes_worthless(aggregator: Aggregator) -> None:
    rescaled = replace(WORK, rescaled=("update",))
    kept = replace(WORK, channels=(*WORK.channels, "control"), kept=("control",))
    for work, said in (
        (rescaled, "client work 'train' divides channel 'update' by a number that the server "
                   "multiplies it with again, and that number has no limit; use 'fedavg'"),
        (kept, "client work 'train' sends 'control' too, of which the server takes a mean that any "
               "one client moves as far as it likes; use 'fedavg'"),
    ):  # fmt: skip
        with pytest.raises(CompositionError) as caught:
            check("fedavg", work, (uniform(),), aggregator)
        assert str(caught.value).startswith(
            f"aggregator '{aggregator.name}' limits what one client"
        )
        assert str(caught.value).endswith(said)
        check("fedavg", work, (uniform(),), mean())


@pytest.mark.parametrize(
    "packing", [quantise(dtype="int8"), top_k(fraction=0.5)], ids=lambda s: s.name
)
def test_plain_values_are_read_before_they_are_packed(packing: Stage) -> None:
    assert _refusal(packing, clip(norm=1.0)) == (
        f"stage 'clip' reads plain values, but '{packing.name}' before it has packed them; "
        "put 'clip' first"
    )
    elsewhere = replace(clip(norm=1.0), channels=("metrics",))
    check("fedavg", WORK, (packing, elsewhere), mean())


def test_quantised_values_cannot_be_ranked() -> None:
    assert _refusal(quantise(dtype="int8"), top_k(fraction=0.5)) == (
        "stage 'top_k' reads plain values, but 'quantise' before it has packed them; "
        "put 'top_k' first"
    )


def test_places_that_depend_on_data_cannot_be_summed() -> None:
    assert _refusal(uniform(), top_k(fraction=0.5), MASKS) == (
        "stage 'masks' adds payloads of one shape, but 'top_k' sends values whose places depend "
        "on the data; leave one of them out"
    )


@pytest.mark.parametrize("before", [(), (uniform(),)], ids=len)
def test_noise_needs_a_bound(before: tuple[Stage, ...]) -> None:
    assert _refusal(*before, NOISE) == (
        "stage 'noise' needs a bound on the L2 norm of channel 'update', and no stage before it "
        "gives one; put 'clip' before it"
    )


@pytest.mark.parametrize(
    "lengthening", [quantise(dtype="int8"), top_k(fraction=0.5)], ids=lambda s: s.name
)
def test_a_bound_does_not_outlive_what_can_lengthen_an_update(lengthening: Stage) -> None:
    blind = replace(NOISE, dense_floats=False)
    assert "needs a bound" in _refusal(clip(norm=1.0), lengthening, blind)


def test_a_bound_on_one_channel_is_none_on_another() -> None:
    assert "of channel 'examples'" in _refusal(
        clip(norm=1.0), replace(NOISE, channels=("examples",))
    )


@pytest.mark.parametrize(
    "lossy", [quantise(dtype="int8", channels=("metrics",)), clip(norm=1.0, channels=("metrics",))],
    ids=lambda s: s.name,
)  # fmt: skip
def test_values_that_the_sender_goes_on_from_arrive_as_they_are(lossy: Stage) -> None:
    keeping = replace(WORK, kept=("metrics",))
    with pytest.raises(CompositionError) as caught:
        check("fedavg", keeping, (lossy,), mean())
    assert str(caught.value) == (
        f"stage '{lossy.name}' changes the values of channel 'metrics', but client work 'train' "
        "goes on from those that it had, so that client and server drift apart for good; leave "
        "'metrics' out of its channels"
    )
    check("fedavg", keeping, (replace(lossy, channels=("update",)),), mean())
    check("fedavg", keeping, (replace(MASKS, channels=("metrics",)),), mean())


def test_a_bound_on_values_that_the_server_rescales_is_none() -> None:
    rescaled = replace(WORK, rescaled=("update",))
    with pytest.raises(CompositionError) as caught:
        check("fedavg", rescaled, (clip(norm=1.0),), mean())
    assert str(caught.value) == (
        "stage 'clip' bounds channel 'update', but client work 'train' divides it by a number "
        "that the server multiplies it with again, so that nothing bounds what is applied; leave "
        "the stage out, or use 'fedavg'"
    )
    check("fedavg", rescaled, (top_k(fraction=0.5), quantise(dtype="int8")), mean())
    check("fedavg", rescaled, (clip(norm=1.0, channels=("metrics",)),), mean())


def test_an_algorithm_is_checked_when_it_is_built() -> None:
    built = Algorithm("fedavg", WORK, (by_examples(),), mean(), average())
    with pytest.raises(CompositionError, match="keep one"):
        replace(built, stages=(by_examples(), uniform()))
    assert issubclass(CompositionError, ConfigError)
    assert CompositionError.exit_code == 2
