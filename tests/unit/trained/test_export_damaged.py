"""An export that would say something else than the trained model is refused, wherever it broke."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atoll.artifacts import plain_lines
from atoll.errors import ModelError
from atoll.trained import verified
from atoll.trained.export_run import Terms, export_run
from tests.support.finished import finish
from tests.support.models import Zoo

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LAYER = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def run(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("run"), zoo, "llama")


def refused(run: Path, place: Path, terms: Terms, words: str) -> None:
    """With these words, and without a trace on the disk."""
    place.mkdir()
    with pytest.raises(ModelError, match=words) as error:
        export_run(run, place / "m", terms, note=lambda text: None)
    assert "Nothing was written" in str(error.value)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (False, "the adapter, loaded without Atoll, is not the trained model"),
        (True, "the adapter could not be merged into the weights"),
    ],
)
def test_a_configuration_with_another_scale(
    merge: bool, words: str, run: Path, tmp_path: Path
) -> None:
    """Atoll's own loading does not read it, and PEFT's does."""
    file = run / "adapter" / "adapter_config.json"
    held = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(held), "lora_alpha": 8}))
        refused(run, tmp_path / "w", Terms(merge=merge), words)
    finally:
        file.write_text(held)
    export_run(run, tmp_path / "m", Terms(merge=merge), note=lambda text: None)


def test_a_weight_that_was_merged_wrongly(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = verified.merged_into

    def wrong(base: Any, folder: Path) -> Any:
        merged = right(base, folder)
        merged.get_parameter(LAYER).data[0] += 0.5
        return merged

    monkeypatch.setattr(verified, "merged_into", wrong)
    refused(run, tmp_path / "w", Terms(merge=True), "could not be merged into the weights")


def _zeroed(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value)


def _no_number(value: torch.Tensor) -> torch.Tensor:
    return value * float("nan")


@pytest.mark.parametrize("damage", [_zeroed, _no_number])
def test_a_file_that_is_damaged_once_it_is_written(
    damage: Callable[[torch.Tensor], torch.Tensor],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = verified.write_merged

    def wrong(run: Any, backbone: Any, folder: Path) -> None:
        right(run, backbone, folder)
        stored = load_file(folder / "model.safetensors")
        stored[LAYER] = damage(stored[LAYER])
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(verified, "write_merged", wrong)
    words = "the merged model, read back, is not the trained one"
    refused(run, tmp_path / "w", Terms(merge=True), words)


def test_lines_that_put_other_bottlenecks_on_the_model(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is verified are the lines of the card, not Atoll's own way to run bottlenecks."""
    run = finish(tmp_path / "run", zoo, "bert", adapter={"method": "bottleneck"})
    found = export_run(run, tmp_path / "a", Terms(), note=lambda text: None)
    assert found.verified.gap.relative < 1e-5
    card = (tmp_path / "a" / "README.md").read_text()
    assert 'add_bottlenecks(model, load_file("model.safetensors"), torch.nn.ReLU())' in card
    monkeypatch.setattr(plain_lines, "_ACTIVATIONS", {"relu": torch.nn.GELU()})
    words = "the adapter, loaded without Atoll, is not the trained model"
    refused(run, tmp_path / "w", Terms(), words)
