"""The adapter's section: values that do not fit each other, and settings of PEFT."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig, OFTConfig, VeraConfig

from atoll.config import dump, load
from atoll.config.peft_fields import peft_config
from atoll.config.peft_methods import PEFT_METHODS, REFUSED

Refusal = Callable[..., list[str]]
MINIMAL = "model: {name_or_path: a}\ndata: {path: b}\n"


@pytest.mark.parametrize(
    ("section", "messages"),
    [
        (
            "{layers_pattern: h}",
            [
                "adapter.layers_pattern is set, but adapter.layers_to_transform is not: nothing is "
                "counted; set it too, or remove adapter.layers_pattern"
            ],
        ),
        (
            "{layers_to_transform: [0], target_modules: '.*query'}",
            [
                "adapter.layers_to_transform stands beside a regular expression in "
                "adapter.target_modules, which already chooses layers; keep one of them"
            ],
        ),
        (
            "{layers_to_transform: [0], layers_pattern: ['h(']}",
            [
                'adapter.layers_pattern is "h(": not a regular expression (missing ), unterminated '
                "subpattern at position 1); use module names"
            ],
        ),
        (
            "{layers_to_transform: -1}",
            [
                "adapter.layers_to_transform is -1; expected a whole number of at least 0, a list "
                "(each item: a whole number of at least 0), or null"
            ],
        ),
        (
            "{method: ia3, target_modules: [k], feedforward_modules: [k, v]}",
            [
                "adapter.feedforward_modules names v, which is not in adapter.target_modules; name "
                "it in both"
            ],
        ),
        (
            "{method: ia3, feedforward_modules: '('}",
            [
                'adapter.feedforward_modules is "(": not a regular expression (missing ), '
                "unterminated subpattern at position 0); use module names"
            ],
        ),
        (
            "{method: bottleneck, placement: houlsby, target_modules: [dense]}",
            [
                "adapter.placement is houlsby, but adapter.target_modules already says where the "
                "bottlenecks stand; remove one of them"
            ],
        ),
        (
            "{method: bottleneck, reduction_factor: 0}",
            ["adapter.reduction_factor is 0; expected a whole number of at least 1"],
        ),
        (
            "{method: layers, num_layers: all}",
            ['adapter.num_layers is "all"; expected a whole number of at least 1'],
        ),
        ("{method: dora, config: 4}", ["adapter.config is 4; expected a mapping"]),
        (
            "{method: vera, config: {rr: 4}}",
            [
                'unknown setting "rr" of vera; did you mean "r"? Valid: r, target_modules, '
                "projection_prng_key, save_projection, vera_dropout, d_initial, init_weights, "
                "layers_to_transform, layers_pattern"
            ],
        ),
        (
            "{method: vera, config: {r: four, vera_dropout: true, target_modules: 4}}",
            [
                'adapter.config.r is "four"; expected a whole number',
                "adapter.config.vera_dropout is true; expected a number",
                "adapter.config.target_modules is 4; expected text, a list (each item: text), or "
                "null",
            ],
        ),
        (
            "{method: dora, config: {modules_to_save: [x], use_dora: true, bias: all}}",
            [
                "adapter.config.modules_to_save cannot be set: only the head trains whole beside "
                "an adapter (adapter.head); remove it",
                "adapter.config.use_dora cannot be set: Atoll sets it; remove it",
                "adapter.config.bias cannot be set: biases beside an adapter are not trained; "
                "adapter.method: bitfit trains biases; remove it",
            ],
        ),
        (
            "{method: dora, config: {init_lora_weights: pissa}}",
            [
                'adapter.config.init_lora_weights is "pissa": it would change the base\'s own '
                "weights or needs rows to start from; use true, gaussian or orthogonal"
            ],
        ),
        (
            "{method: oft, config: {coft: true}}",
            [
                "adapter.config.coft cannot be set: it changes the trained values whenever they "
                "are read; remove it"
            ],
        ),
        (
            "{method: trainable_tokens}",
            [
                "adapter.config.token_indices is missing: trainable_tokens trains the embeddings "
                "of the tokens that it names, as {token_indices: [5, 6]}"
            ],
        ),
        (
            "{method: oft, config: {r: 4, oft_block_size: 4}}",
            ["adapter.config: oft of PEFT refuses it: "],
        ),
    ],
)
def test_what_does_not_fit_is_refused(refusal: Refusal, section: str, messages: list[str]) -> None:
    told = refusal(f"{MINIMAL}adapter: {section}\n")
    assert len(told) == len(messages)
    for line, message in zip(told, messages, strict=True):
        assert line.startswith("f.yaml:3: ")
        found = line.removeprefix("f.yaml:3: ")
        assert found.startswith(message) if message.endswith(": ") else found == message


@pytest.mark.parametrize("method", REFUSED)
def test_a_type_that_does_not_train_is_refused_with_its_reason(
    refusal: Refusal, method: str
) -> None:
    assert refusal(f"{MINIMAL}adapter: {{method: {method}}}\n") == [
        f'f.yaml:3: adapter.method is "{method}": {REFUSED[method]}'
    ]


def test_a_method_that_is_misspelt(refusal: Refusal) -> None:
    (told,) = refusal(f"{MINIMAL}adapter: {{method: dorra}}\n")
    assert told.endswith('; did you mean "dora"?')


def test_what_peft_is_given_is_its_own_configuration() -> None:
    dora = peft_config("dora", {"r": 3, "lora_alpha": 7, "target_modules": ["q"]})
    assert dora == LoraConfig(r=3, lora_alpha=7, target_modules=["q"], use_dora=True)
    assert peft_config("vera", {"d_initial": 0.3}) == VeraConfig(d_initial=0.3)
    assert isinstance(peft_config("oft", {}), OFTConfig)


@pytest.mark.parametrize("method", sorted(PEFT_METHODS))
def test_every_method_takes_its_defaults_and_every_default(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that says what PEFT's class holds anyway is read as it stands."""
    monkeypatch.chdir(tmp_path)
    config = peft_config(method, {})
    told = {"r", "rank_dropout", "init_weights"} & {f.name for f in dataclasses.fields(config)}
    if method == "adalora":  # PEFT's class has an r that it does not read
        told = {"init_r", "target_r"}
    section = {"method": method, "config": {name: vars(config)[name] for name in told}}
    if method == "trainable_tokens":
        section["config"]["token_indices"] = [5]
    Path("f.yaml").write_text(f"{MINIMAL}adapter: {json.dumps(section)}\n")
    experiment = load("f.yaml").experiment
    assert experiment.adapter.config == section["config"]
    Path("again.yaml").write_text(dump(experiment))
    assert load("again.yaml").experiment == experiment
