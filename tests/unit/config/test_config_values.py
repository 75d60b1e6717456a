"""Values of the wrong kind, word for word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Refusal = Callable[..., list[str]]
SEED = "expected a whole number of at least 0 and of at most 9223372036854775807"
MINIMAL = "model: {name_or_path: a}\ndata:\n  path: b\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: x", 'seed is "x"; ' + SEED),
        ("seed: true", "seed is true; " + SEED),
        ("seed: 1.5", "seed is 1.5; " + SEED),
        ("seed: -1", "seed is -1; " + SEED),
        (f"seed: {2**63}", f"seed is {2**63}; {SEED}"),
        ("output_dir: ''", 'output_dir is ""; expected text that is not empty'),
        ("output_dir: 3", "output_dir is 3; expected text: put it in quotes"),
        ("output_dir: [a]", 'output_dir is ["a"]; expected text'),
        (
            "train: {learning_rate: abc}",
            'train.learning_rate is "abc"; expected a number greater than 0',
        ),
        (
            "train: {learning_rate: 0}",
            "train.learning_rate is 0; expected a number greater than 0",
        ),
        (
            "train: {learning_rate: .inf}",
            "train.learning_rate is Infinity; expected a number greater than 0",
        ),
        (
            "train: {max_grad_norm: 0}",
            "train.max_grad_norm is 0; expected a number greater than 0, or null",
        ),
        (
            "train: {optimizer: adam}",
            'train.optimizer is "adam"; expected one of adamw, sgd; did you mean "adamw"?',
        ),
        (
            "train: {group_size: x}",
            'train.group_size is "x"; expected a whole number of at least 1, or auto',
        ),
        (
            "train: {restricted: 'yes'}",
            'train.restricted is "yes"; expected true or false',
        ),
        (
            "adapter: {lora_dropout: 1}",
            "adapter.lora_dropout is 1; expected a number of at least 0 and less than 1",
        ),
        (
            "adapter: {target_modules: [a, 2]}",
            "adapter.target_modules.1 is 2; expected text: put it in quotes",
        ),
        (
            "federation: {num_rounds: -1}",
            "federation.num_rounds is -1; expected a whole number of at least 0",
        ),
        (
            "federation: {fraction_train: 2}",
            "federation.fraction_train is 2; expected a number greater than 0 and of at most 1, "
            "or null",
        ),
        (
            "evaluate: {baselines: [locl]}",
            'evaluate.baselines.0 is "locl"; expected one of local, pooled; did you mean "local"?',
        ),
        ("evaluate: {baselines: local}", 'evaluate.baselines is "local"; expected a list '
         "(each item: one of local, pooled)"),
        (
            "evaluate: 3",
            "evaluate is 3; expected a section with every, baselines, patience, load_best",
        ),
        ("devices: [1]", "devices is [1]; expected a mapping"),
        (
            "report_to: [mlflow, mlflow]",
            'report_to is ["mlflow", "mlflow"]: a tracker is named twice; name each once',
        ),
        (
            "report_to: tensorbord",
            'report_to is "tensorbord"; expected one of none, tensorboard, mlflow, wandb, or a '
            "list (each item: one of tensorboard, mlflow, wandb); did you mean "
            '"tensorboard"?',
        ),
        (
            f"output_dir: [{'a' * 90}]",
            f'output_dir is ["{"a" * 55}...; expected text',
        ),
        (
            "federation: {algorithm: 3}",
            "federation.algorithm is 3: expected a name, or a mapping as in "
            "{name: fedprox, mu: 0.1}",
        ),
        (
            "federation: {stages: [clip, {c: 1}]}",
            'federation.stages.1 is {"c": 1}: the mapping needs a name, as in '
            "{name: fedprox, mu: 0.1}",
        ),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind(refusal: Refusal, line: str, message: str) -> None:
    assert refusal(f"{MINIMAL}{line}\n") == [f"f.yaml:4: {message}"]


def test_labels_are_named_once(refusal: Refusal) -> None:
    assert refusal(f"{MINIMAL}  labels: [a, b, a, '']\n") == [
        "f.yaml:4: data.labels.2 is a, as data.labels.0 is; name each label once",
        "f.yaml:4: data.labels.3 is empty; name the label",
    ]


def test_values_inside_data(refusal: Refusal) -> None:
    assert refusal(f"{MINIMAL}  labels:\n    - a\n    - 1\n  columns: {{text: 2}}\n") == [
        "f.yaml:6: data.labels.1 is 1; expected text: put it in quotes",
        "f.yaml:7: data.columns.text is 2; expected text: put it in quotes",
    ]
