"""A base in bfloat16 trains by every method, its values in float32, near the float32 model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.infer import forward_batches
from atoll.runs.lines import RoundLine
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from tests.support.federation import labelled_rows, text_rows
from tests.support.models import Zoo
from tests.support.scenes import scene, stirred, write_clients

SOLVED = {"lora": "ridge", "bitfit": "ridge", "full": "ridge", "none": "train"}
CASES = [
    *(("bert", pooling, method, "train") for pooling in ("mean", "model") for method in SOLVED),
    *(("roberta", "model", method, "train") for method in SOLVED),
    *(("gpt2", "auto", method, head) for method, head in SOLVED.items()),
    *(("gpt2", "model", method, "train") for method in SOLVED),
    *(("llama", "auto", method, head) for method, head in SOLVED.items() if method != "bitfit"),
    *(("gpt2", "", method, None) for method in ("lora", "bitfit", "full")),
]  # fmt: skip


def _scene(folder: Path, zoo: Zoo, case: tuple[str, str, str, str | None], dtype: str) -> Setup:
    kind, pooling, method, head = case
    sizes = {"ada": 12}
    write_clients(folder / "data", labelled_rows(sizes) if pooling else text_rows(sizes))
    model: dict[str, Any] = {"dtype": dtype, "task": "classification" if pooling else "causal-lm"}
    return scene(
        folder, zoo, kind,
        model=model | ({"pooling": pooling} if pooling else {}),
        adapter={"method": method, "head": head, **({"r": 2} if method == "lora" else {})},
        train={"learning_rate": 0.01, "num_train_epochs": 3},
        federation={"num_rounds": 3},
        evaluate={"baselines": []},
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_it_trains(case: tuple[str, str, str, str | None], tmp_path: Path, zoo: Zoo) -> None:
    setup = _scene(tmp_path, zoo, case, "bfloat16")
    assert next(setup.base.backbone.parameters()).dtype == torch.bfloat16
    values = model_values(setup.start.server)
    assert {value.dtype for value in values.values()} == {torch.float32}
    losses: list[float] = []

    def hear(line: RoundLine) -> None:
        if line.loss is not None:
            losses.append(line.loss)

    run_experiment(setup, tmp_path / "run", Observer(note=lambda text: None, round=hear))
    assert all(map(math.isfinite, losses))
    if case[3] != "ridge":  # a head that is solved anew moves the loss of the next round
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_its_logits_are_those_of_float32(
    case: tuple[str, str, str, str | None], tmp_path: Path, zoo: Zoo
) -> None:
    half = _scene(tmp_path / "half", zoo, case, "bfloat16")
    exact = _scene(tmp_path / "exact", zoo, case, "float32")
    found = _logits(half, half)
    want = _logits(exact, half)
    assert found.dtype == (want.dtype if half.base.head or case[2] == "full" else torch.bfloat16)
    assert float((found.float() - want).abs().max()) < 0.1 * float(want.abs().max())


def _logits(setup: Setup, trained: Setup) -> torch.Tensor:
    """Of the first client's first row, under values that the other setup's state was stirred to."""
    values = model_values(stirred(trained))
    rows = setup.bench.examples("ada", "train")[:1]
    ((_, _, logits),) = forward_batches(setup.bench, values, rows)
    return logits
