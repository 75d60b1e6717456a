"""Keys that are missing, unknown or given twice, in files and on the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atoll.config.schema import Experiment

Refusal = Callable[..., list[str]]
MINIMAL = "model: {name_or_path: a}\ndata:\n  path: b\n"
MODEL_KEYS = (
    "name_or_path, task, dtype, pooling, normalize, trust_remote_code, attn_implementation, "
    "load_in_8bit, gguf_file, revision"
)
KEYS = ", ".join(Experiment.model_fields)
DATA_PATH = "folder of clients, folder or file of one data set, hub id, or builtin:NAME."


def test_what_must_be_given(refusal: Refusal) -> None:
    assert refusal("model:\n  task: classification\n") == [
        f"f.yaml:1: data.path is missing; it is the {DATA_PATH}",
        "f.yaml:1: model.name_or_path is missing; it is the hub id, local directory, or "
        "builtin:minilm or builtin:smollm2 (both work offline).",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {name_or_path: a, nam: b}\ndata: {path: b}",
            f'f.yaml:1: unknown key "nam" in model. Valid keys: {MODEL_KEYS}',
        ),
        (
            "model:\n  name_or_path: a\n  Pooling: b\ndata: {path: b}",
            f'f.yaml:3: unknown key "Pooling" in model; did you mean "pooling"? Valid keys: '
            f"{MODEL_KEYS}",
        ),
        (f"{MINIMAL}trian: 3", f'f.yaml:4: unknown key "trian"; did you mean "train"? '
         f"Valid keys: {KEYS}"),
        (f"{MINIMAL}learning_rate: 3", 'f.yaml:4: unknown key "learning_rate"; did you mean '
         f'"train.learning_rate"? Valid keys: {KEYS}'),
        (f"{MINIMAL}model_name_or_path: 3", 'f.yaml:4: unknown key "model_name_or_path"; did you '
         f'mean "model.name_or_path"? Valid keys: {KEYS}'),
        (f"{MINIMAL}<<: {{seed: 1}}", f'f.yaml:4: unknown key "<<". Valid keys: {KEYS}'),
    ],
)  # fmt: skip
def test_an_unknown_key(refusal: Refusal, text: str, message: str) -> None:
    assert refusal(text) == [message]


def test_a_misspelt_section_on_the_command_line(refusal: Refusal) -> None:
    assert refusal(MINIMAL, "trian.max_steps=1") == [
        f'on the command line: unknown key "trian"; did you mean "train"? Valid keys: {KEYS}'
    ]
    (found,) = refusal(MINIMAL, "data.colums.text=a")
    assert found.startswith('on the command line: unknown key "colums" in data; did you mean "col')


def test_a_key_that_stands_twice(refusal: Refusal) -> None:
    assert refusal(f"{MINIMAL}seed: 1\nseed: 2\n") == [
        'f.yaml:5: "seed" stands twice, first at f.yaml:4; keep one'
    ]


def test_the_problems_of_a_file_come_together_in_its_order(refusal: Refusal) -> None:
    text = f"seed: x\n{MINIMAL}adapter: {{r: 0}}\nseed: 1\ndevices:\n  a: 1\n  b: 2\n"
    assert refusal(text, "train.x=1", "train.learning_rate=-1") == [
        'f.yaml:6: "seed" stands twice, first at f.yaml:1; keep one',
        'f.yaml:1: seed is "x"; expected a whole number of at least 0 and of at most '
        "9223372036854775807",
        "f.yaml:5: adapter.r is 0: a LoRA of rank 0 trains nothing; use r >= 1, or "
        "adapter.method: none",
        "f.yaml:8: devices.a is set, but devices is not available in this version; remove it",
        "f.yaml:9: devices.b is set, but devices is not available in this version; remove it",
        'on the command line: unknown key "x" in train. Valid keys: '
        + ", ".join(Experiment.model_fields["train"].annotation.model_fields),  # type: ignore[union-attr]
        "on the command line: train.learning_rate is -1; expected a number greater than 0",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", '"seed" has no "="; write seed=VALUE'),
        ("=3", '"=3" names no key; write section.key=VALUE, as in federation.num_rounds=5'),
        ("a..b=3", '"a..b=3" names no key; write section.key=VALUE, as in federation.num_rounds=5'),
        ("data.path.x=3", 'data.path is "b" and has no "x"; set data.path itself'),
        (
            "federation.stages.2=x",
            "federation.stages.2 is not in the list federation.stages, which has 2 items counted "
            "from 0; set the whole list",
        ),
        ("seed=[", "seed=[: broken YAML: while parsing a flow node, expected the node content, "
         "but found '<stream end>'"),
        ("data.columns={a: b, a: c}", 'data.columns={a: b, a: c}: "a" stands twice, first at on '
         "the command line: data.columns={a: b, a: c}; keep one"),
    ],
)  # fmt: skip
def test_a_wrong_override(refusal: Refusal, override: str, message: str) -> None:
    text = f"{MINIMAL}federation: {{stages: [a, b]}}\n"
    assert refusal(text, override) == [f"on the command line: {message}"]
