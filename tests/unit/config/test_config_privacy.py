"""The section `privacy`: what it reads, and beside what it would promise too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.config import Experiment, load
from atoll.config.data import Scale
from atoll.config.privacy import AdaptiveClip

Refusal = Callable[..., list[str]]
MINIMAL = "model: {name_or_path: a}\ndata:\n  path: b\n"
ON = "privacy: {epsilon: 8}\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Experiment]:
    def parsed(text: str) -> Experiment:
        (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
        return load(tmp_path / "f.yaml").experiment

    return parsed


def test_nothing_is_promised_by_default(read: Callable[[str], Experiment]) -> None:
    assert not read(MINIMAL).privacy.on
    assert not read(f"{MINIMAL}privacy: {{}}\n").privacy.on


def test_a_clip_is_a_number_or_follows_a_quantile(read: Callable[[str], Experiment]) -> None:
    assert read(f"{MINIMAL}privacy: {{epsilon: 8, clip: 0.3}}\n").privacy.clip == 0.3
    found = read(f"{MINIMAL}privacy: {{epsilon: 8, clip: {{adaptive: true, quantile: 0.4}}}}\n")
    assert found.privacy.clip == AdaptiveClip(adaptive=True, quantile=0.4)


def test_rows_that_share_a_sequence_are_no_single_rows(
    refusal: Refusal, read: Callable[[str], Experiment]
) -> None:
    model = MINIMAL.replace("a}", "a, task: causal-lm}").replace("b\n", "b\n  packing: true\n")
    (found,) = refusal(f"{model}privacy: {{unit: example, epsilon: 8}}\n")
    assert found.startswith("f.yaml:4: data.packing is true, so that several rows share a sequence")
    assert read(f"{model}{ON}").data.packing


@pytest.mark.parametrize("privacy", ["epsilon: 8", "secure_aggregation: true"])
def test_moments_of_labels_are_hidden_nowhere(refusal: Refusal, privacy: str) -> None:
    model = MINIMAL.replace("a}", "a, task: regression}")
    (found,) = refusal(f"{model}privacy: {{{privacy}}}\n")
    assert found.startswith(
        "f.yaml:2: data.label_scale is missing: model.task is regression, which"
    )


@pytest.mark.parametrize("privacy", ["epsilon: 8", "secure_aggregation: true"])
def test_a_scale_that_everyone_knows_is_no_secret(
    read: Callable[[str], Experiment], privacy: str
) -> None:
    scale = "label_scale: {mean: 40, deviation: 10}"
    model = MINIMAL.replace("a}", "a, task: regression}").replace("b\n", f"b\n  {scale}\n")
    found = read(f"{model}privacy: {{{privacy}}}\n").data.label_scale
    assert found == Scale(mean=40.0, deviation=10.0)


@pytest.mark.parametrize(("mean", "deviation", "said"), [
    (1e15, 100, "label_scale.deviation is 100, and beside a mean of 1e+15 nothing but rounding"),
    (0, 0, "label_scale.deviation is 0; expected a number of at least 1e-100"),
    (0, 1e-200, "label_scale.deviation is 1e-200; expected"),
])  # fmt: skip
def test_a_scale_that_would_not_be_used_is_refused(
    refusal: Refusal, mean: float, deviation: float, said: str
) -> None:
    scale = f"label_scale: {{mean: {mean}, deviation: {deviation}}}"
    model = MINIMAL.replace("a}", "a, task: regression}").replace("b\n", f"b\n  {scale}\n")
    (found,) = refusal(model)
    assert said in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("privacy: {clip: 2}\n", "f.yaml:4: privacy.clip is set, but neither privacy.epsilon nor"),
        ("privacy: {epsilon: 0}\n", "privacy.epsilon is 0; expected a number greater than 0"),
        ("privacy: {noise_multiplier: -1}\n", "privacy.noise_multiplier is -1; expected"),
        ("privacy: {epsilon: 8, delta: 1}\n", "privacy.delta is 1; expected"),
        ("privacy: {epsilon: 8, cap: 4, sampling: fixed}\n", "privacy.cap is 4, but"),
        ("privacy: {epsilon: 8, cap: 4}\n", "privacy.cap is 4, but every round asks all clients"),
        (
            "privacy: {epsilon: 8, sampling: fixed}\n",
            "f.yaml:4: privacy.sampling is fixed, but every round asks all clients",
        ),
        *(
            (
                f"privacy: {{{noise}, {key}: {value}}}\n",
                f"f.yaml:4: privacy.{key} is {value}, but privacy.secure_aggregation is false",
            )
            for noise in ("epsilon: 8", "noise_multiplier: 1.0, unit: example")
            for key, value in (
                ("key_holder", "c01"),
                ("max_examples", 5),
                ("min_survivors", 20),
                ("corrupt", 0.4),
                ("dropping", 0.2),
            )
        ),
        (
            "privacy: {epsilon: 8, secure_aggregation: true, max_examples: 5}\n",
            "f.yaml:4: privacy.max_examples is 5, but clients weigh the same where noise hides",
        ),
        (
            "privacy: {epsilon: 8, clip: {adaptive: false}}\n",
            "privacy.clip.adaptive is false; expected true",
        ),
        ("privacy: {epsilon: 8, clip: {adaptive: true, quantil: 1}}\n", "quantil"),
        (f"{ON}federation: {{late: fold}}\n", "federation.late is fold, but under privacy"),
        (
            "privacy: {unit: example, noise_multiplier: 1.0}\nfederation: {late: fold}\n",
            "federation.late is fold, but under privacy",
        ),
        (f"{ON}federation: {{min_clients: 2}}\n", "federation.min_clients is 2, but under privacy"),
        (f"{ON}federation: {{aggregator: median}}\n", "federation.aggregator is median, but"),
        (
            "privacy: {secure_aggregation: true}\ntrain: {class_weights: balanced}\n",
            "f.yaml:5: train.class_weights is balanced, which counts all clients' labels",
        ),
        (
            "privacy: {min_survivors: 3}\n",
            "f.yaml:4: privacy.min_survivors is 3, but privacy.secure_aggregation is false",
        ),
        *(
            (
                f"{ON}federation:\n  stages: [{{name: bf16}}, {stage}]\n",
                f"f.yaml:6: federation.stages.1 is {name}, but {why}",
            )
            for stage, name, why in (
                ("by_examples", "by_examples", "weighting by examples lets one client's weight"),
                ("{name: uniform}", "uniform", "under privacy clients weigh the same already"),
                ("{name: clip, norm: 0.1}", "clip", "under privacy updates are cut to privacy."),
            )
        ),
        *(
            (
                f"privacy: {{unit: example, noise_multiplier: 1.0}}\ntrain: {{{setting}}}\n",
                f"f.yaml:5: train.{setting.replace(': ', ' is ')}",
            )
            for setting in ("class_balance: true", "restricted: true", "logit_adjustment: 0.5")
        ),
        *(
            (
                "privacy: {unit: example, noise_multiplier: 1.0}\n"
                f"train: {{class_weights: {weights}}}\n",
                "give weights by label",
            )
            for weights in ("balanced", "balanced-per-client")
        ),
        (f"{ON}evaluate: {{patience: 2}}\n", "evaluate.patience chooses a model by clients'"),
        (f"{ON}evaluate: {{load_best: true}}\n", "evaluate.load_best chooses a model by clients'"),
        (
            "privacy: {secure_aggregation: true}\nevaluate: {patience: 2}\n",
            "whose scores stay with",
        ),
        (
            "privacy: {epsilon: 8, sampling: everyone}\nfederation: {clients_per_round: 3}\n",
            "privacy.sampling is everyone, but federation asks a part",
        ),
    ],
)
def test_what_would_promise_too_much_is_refused(refusal: Refusal, text: str, message: str) -> None:
    found = refusal(f"{MINIMAL}{text}")
    assert any(message in one for one in found), found
