"""Merged models of every task: their cards' lines say what those of the adapters' cards say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.trained.export_run import Terms, export_run
from tests.support.finished import TEXTS
from tests.support.gallery import Gallery
from tests.support.images import save_picture
from tests.support.models import Zoo
from tests.support.scenes import largest
from tests.unit.tasks.test_tasks_text import task_scene
from tests.unit.tasks.test_tasks_vision import scene

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TRAIN: dict[str, Mapping[str, Any]] = {"adapter": {"head": "train"}}
CASES: dict[str, tuple[str, str, dict[str, Mapping[str, Any]]]] = {
    "masked-lm": ("masked-lm", "bert", {}),
    "masked-lm-bitfit": ("masked-lm", "bert", {"adapter": {"method": "bitfit"}}),
    "masked-lm-full": ("masked-lm", "bert", {"adapter": {"method": "full"}}),
    "tags": ("token-classification", "bert", {}),
    "numbers": ("regression", "bert", {"model": {"pooling": "mean"}}),
    "numbers-own-head": (
        "regression",
        "bert-with-pooler",
        {"model": {"pooling": "model"}, **TRAIN},
    ),
    "topics": ("multi-label-classification", "gpt2", {"model": {"pooling": "model"}, **TRAIN}),
    "vit": ("image-classification", "vit", TRAIN),
    "vit-own-processor": ("image-classification", "vit-bare", {}),
    "resnet": ("image-classification", "resnet", {"adapter": {"method": "none"}}),
    "pairs": ("embedding", "bert-with-pooler", {"train": {"learn_temperature": True}}),
    "pairs-last": ("embedding", "gpt2", {"model": {"pooling": "last"}}),
    "clip": ("embedding", "clip", {}),
    "clip-full": ("embedding", "clip", {"adapter": {"method": "full"}}),
    "dpo": ("preference", "gpt2", {}),
}
OURS = ("masked-lm", "token-classification", "regression", "multi-label-classification")
SEEN = ("vit", "vit-bare", "resnet", "clip")

DRIVER = """
import os, runpy, sys, warnings
if sys.argv[1] == "alone":
    sys.modules["peft"] = None
import torch
from safetensors.torch import save_file
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
names = ("logits", "numbers", "features", "text_embeddings", "image_embeddings")
for folder in sys.argv[2:]:
    os.chdir(folder)
    found = runpy.run_path("card.py")
    kept = {name: found[name].contiguous() for name in names if torch.is_tensor(found.get(name))}
    save_file(kept, "found.safetensors")
assert not [name for name in sys.modules if name.split(".")[0] == "atoll"]
"""


def finished(folder: Path, case: str, path: str) -> Path:
    task, _, sections = CASES[case]
    train = {"learning_rate": 0.02, "group_size": 1, "prefix_cache": "off"}
    train |= sections.get("train", {})
    asked = {
        **sections, "train": train, "federation": {"num_rounds": 1}, "evaluate": {"baselines": []}
    }  # fmt: skip
    if task in OURS:
        setup, _ = task_scene(folder, path, task, **asked)
    else:
        model = {"name_or_path": path, "task": task, **sections.get("model", {})}
        asked.pop("model", None)
        setup = scene(folder, model, **asked)
    run_experiment(setup, folder / "run", Observer())
    return folder / "run"


def write_lines(folder: Path, picture: Path) -> None:
    """The Python block of the card, on texts and an image of ours."""
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    lines = block.replace('["a row of text"]', repr(TEXTS)).replace("image.png", str(picture))
    words = [text.split() for text in TEXTS]
    lines = lines.replace('[["a", "row", "of", "words"]]', repr(words))
    assert lines != block
    (folder / "card.py").write_text(lines)


def lines_found(folders: list[Path], how: str, driver: Path) -> list[dict[str, Tensor]]:
    driver.write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, str(driver), how, *map(str, folders)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [load_file(folder / "found.safetensors") for folder in folders]


SOME = ("masked-lm", "tags", "vit", "clip", "dpo")


@pytest.mark.parametrize("cases", [SOME, pytest.param(tuple(CASES), marks=pytest.mark.long)])
def test_merged_models_of_every_task(
    cases: tuple[str, ...], zoo: Zoo, gallery: Gallery, tmp_path: Path
) -> None:
    picture = tmp_path / "red.png"
    save_picture(picture, "red", 1, size=(30, 22))
    merged: list[Path] = []
    adapters: list[Path] = []
    for case in cases:
        task, kind, _ = CASES[case]
        path = gallery(kind) if kind in SEEN else zoo(kind)
        run = finished(tmp_path / case, case, path)
        for folders, terms in ((merged, Terms(merge=True)), (adapters, Terms())):
            folders.append(tmp_path / case / ("m" if terms.merge else "a"))
            found = export_run(run, folders[-1], terms, note=lambda text: None)
            assert found.verified.gap.relative < 1e-5, case
            write_lines(folders[-1], picture)
        card = (merged[-1] / "README.md").read_text()
        assert f"| task | {task} |" in card
        assert json.loads((merged[-1] / "config.json").read_text())["architectures"], case
    alone = lines_found(merged, "alone", tmp_path / "driver.py")
    beside = lines_found(adapters, "with peft", tmp_path / "driver.py")
    for case, ours, theirs in zip(cases, alone, beside, strict=True):
        assert ours.keys() == theirs.keys() != set(), case
        for name, value in ours.items():
            assert largest(value, theirs[name]) < 1e-5 * max(1.0, float(value.abs().max())), case
