"""Images, pairs and preferences from the experiment file to what is exported, loaded elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from atoll.artifacts.export import export_adapter
from atoll.config import load
from atoll.core import State
from atoll.data import Row
from atoll.experiment.setup import Setup, prepare
from atoll.local.bench import model_values
from atoll.local.infer import forward_batches
from atoll.tasks import task_of
from atoll.tasks.kind import Reading
from atoll.trained.load_run import read_adapter
from tests.support.gallery import Gallery
from tests.support.images import COLOURS, save_picture
from tests.support.models import Zoo
from tests.support.scenes import SUMMARY, largest, stirred, write_clients
from tests.support.task_sites import pair_rows, preference_rows

# PEFT 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TEXTS = ["reef tide coral", "boat", "sun moon star wind rain"]
CLOSE = 1e-5


def pictures(folder: Path, *, texts: bool = False) -> Path:
    """Clients of uneven rows; images are files beside them."""
    rows: dict[str, list[Mapping[str, str]]] = {}
    for number, client in enumerate(("ada", "bob", "cy")):
        rows[client] = []
        for i in range(4 + 3 * number):
            colour = sorted(COLOURS)[(i + number) % 3]
            save_picture(folder / client / "seen" / f"{i}.png", colour, 10 * number + i)
            said = {"text": f"{colour} reef {'boat ' * i}"} if texts else {"label": colour}
            rows[client].append({"image": f"seen/{i}.png", **said})
    for client, own in rows.items():
        for split, part in (("train", own), ("test", own[:2])):
            lines = "".join(json.dumps(row) + "\n" for row in part)
            (folder / client / f"{split}.jsonl").write_text(lines)
    return folder


def scene(folder: Path, model: Mapping[str, Any], **sections: Mapping[str, Any]) -> Setup:
    """An experiment file in `folder`, over rows of the task, ready to run."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    if not data.exists():
        if model["task"] == "preference":
            write_clients(data, preference_rows())
        elif model["task"] == "image-classification" or "clip" in model["name_or_path"]:
            pictures(data, texts=model["task"] == "embedding")
        else:
            write_clients(data, pair_rows())
    length = {} if model["task"] == "image-classification" else {"max_length": 12}
    written: dict[str, Any] = {
        "model": dict(model),
        "data": {"path": str(data), **length},
        "train": {"per_device_train_batch_size": 4, "group_size": 2, "device": "cpu"},
        "output_dir": str(folder / "run"),
    }
    for name, values in sections.items():
        written[name] = {**written.get(name, {}), **values}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(written))
    return prepare(load(folder / "experiment.yaml"), note=lambda text: None)


def image_model(gallery: Gallery, kind: str, **options: Any) -> dict[str, Any]:
    return {"name_or_path": gallery(kind), "task": "image-classification", **options}


def pair_model(path: str, **options: Any) -> dict[str, Any]:
    return {"name_or_path": path, "task": "embedding", **options}


Case = tuple[str, str, dict[str, Any], dict[str, Any]]
# Where the model is from, its name, options of the model, and other sections.
CASES: dict[str, Case] = {
    "vit": ("image", "vit", {}, {"adapter": {"head": "train", "lora_dropout": 0.1}}),
    "vit-solved": ("image", "vit", {}, {}),
    "vit-own-processor": ("image", "vit-bare", {}, {}),
    "vit-grey": ("image", "vit-grey", {}, {"adapter": {"target_modules": ["fc1", "fc2"]}}),
    "vit-full": ("image", "vit", {}, {"adapter": {"method": "full", "head": "train"}}),
    "vit-half-full": (
        "image", "vit", {"dtype": "bfloat16"}, {"adapter": {"method": "full", "head": "train"}},
    ),
    "vit-half": ("image", "vit", {"dtype": "bfloat16"}, {"adapter": {"head": "train"}}),
    "resnet": ("image", "resnet", {}, {"adapter": {"method": "none"}}),
    "bert-pairs": ("zoo", "bert-with-pooler", {"pooling": "cls", "normalize": False}, {}),
    "bert-learned": ("zoo", "bert-with-pooler", {}, {"train": {"learn_temperature": True}}),
    "bert-full": ("zoo", "bert-with-pooler", {}, {"adapter": {"method": "full"}}),
    "gpt2-last": ("zoo", "gpt2", {"pooling": "last"}, {}),
    "llama-half": ("zoo", "llama", {"pooling": "last", "dtype": "bfloat16"}, {}),
    "clip": ("gallery", "clip", {}, {}),
    "clip-learned": (
        "gallery", "clip", {"normalize": False}, {"train": {"learn_temperature": True}},
    ),
    "clip-full": ("gallery", "clip", {}, {"adapter": {"method": "full"}}),
    "dpo-gpt2": ("dpo", "gpt2", {}, {}),
    "dpo-llama": ("dpo", "llama", {}, {"adapter": {"method": "full"}}),
}  # fmt: skip


def of_case(name: str, folder: Path, zoo: Zoo, gallery: Gallery) -> Setup:
    place, kind, options, sections = CASES[name]
    if place == "image":
        return scene(folder, image_model(gallery, kind, **options), **sections)
    if place == "dpo":
        path = {"name_or_path": zoo(kind), "task": "preference"}
        return scene(folder, {**path, **options}, **sections)
    return scene(folder, pair_model((zoo if place == "zoo" else gallery)(kind), **options),
                 **sections)  # fmt: skip


def asked(setup: Setup, folder: Path) -> tuple[list[Row], list[Row]]:
    """Rows of images and rows of texts to ask the model with, as far as it reads them."""
    images: list[Row] = []
    if setup.base.processor is not None:
        for i, colour in enumerate(COLOURS):
            save_picture(folder / f"asked-{i}.png", colour, 90 + i, size=(30, 22))
            images.append({"image": str(folder / f"asked-{i}.png")})
    texts = [{"text": text} for text in TEXTS]
    return images, texts if setup.base.tokenizer is not None else []


def outputs_of(setup: Setup, state: State, rows: Sequence[Row]) -> list[Any]:
    """What the model gives for each row: logits, or the vectors that `atoll predict` writes."""
    bench, task = setup.bench, task_of(setup.experiment)
    if setup.experiment.model.task == "preference":
        short = {"truncation": True, "max_length": 12, "return_tensors": "pt"}
        return [_forward(setup, state, setup.base.tokenizer(row["text"], **short))[0]
                for row in rows]  # fmt: skip
    found: dict[int, Any] = {}
    examples = bench.objective.encode(rows)
    for places, batch, outputs in forward_batches(bench, model_values(state), examples):
        said: Sequence[Any] = outputs
        if setup.experiment.model.task == "embedding":
            reading = Reading(rows, (), None, 1, experiment=setup.experiment)
            assert task.read is not None
            said = [next(iter(one.values())) for one in task.read(outputs, batch, reading)]
        found.update(zip(places, said, strict=True))
    return [torch.as_tensor(found[place]) for place in range(len(rows))]


def _forward(setup: Setup, state: State, inputs: Mapping[str, Tensor]) -> Tensor:
    from atoll.adapters.site import Frame

    values = {name: value.unsqueeze(0) for name, value in model_values(state).items()}
    with torch.inference_mode():
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return setup.bench.model.forward(values, batch, Frame(1))


DRIVER = """
import os, runpy, sys, warnings
import torch
from safetensors.torch import save_file
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
names = ("logits", "features", "text_embeddings", "image_embeddings")
for folder in sys.argv[1:]:
    os.chdir(folder)
    found = runpy.run_path("card.py")
    kept = {name: found[name].contiguous() for name in names if torch.is_tensor(found.get(name))}
    save_file(kept, "outputs.safetensors")
"""


def card_lines(adapter: Path, folder: Path) -> str:
    """The Python block of the model card, on our images and texts."""
    card = (adapter / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    lines = block.replace('["a row of text"]', repr(TEXTS))
    opened = re.compile(r'\[Image\.open\("image\.png"\)(\S+)\]')
    paths = [str(folder / f"asked-{i}.png") for i in range(len(COLOURS))]
    return opened.sub(rf"[Image.open(path)\1 for path in {paths!r}]", lines)


def test_the_model_cards_lines_give_the_outputs(tmp_path: Path, zoo: Zoo, gallery: Gallery) -> None:
    """Plain transformers and peft, in another process that never imports Atoll."""
    ours: dict[str, list[tuple[str, list[Tensor]]]] = {}
    for name in CASES:
        setup = of_case(name, tmp_path / name, zoo, gallery)
        state = stirred(setup)
        adapter = tmp_path / name / "adapter"
        export_adapter(setup, state, adapter, SUMMARY)
        images, texts = asked(setup, tmp_path)
        lines = card_lines(adapter, tmp_path)
        assert "atoll" not in lines
        (adapter / "card.py").write_text(lines)
        task = setup.experiment.model.task
        kinds = {"image_embeddings": images, "text_embeddings": texts}
        if task != "embedding" or not images:
            kinds = {"features" if task == "embedding" else "logits": images or texts}
        ours[name] = [(key, outputs_of(setup, state, rows)) for key, rows in kinds.items()]
    (tmp_path / "driver.py").write_text(DRIVER)
    folders = [str(tmp_path / name / "adapter") for name in CASES]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), *folders], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, kinds_of in ours.items():
        theirs = load_file(tmp_path / name / "adapter" / "outputs.safetensors")
        half = "half" in name and "full" not in name
        for key, rows in kinds_of:
            for row, other in zip(rows, theirs[key], strict=True):
                other = other[: len(row)]  # a batch adds padding
                size = max(1.0, float(row.abs().max()))
                assert largest(row, other) < (0.05 if half else CLOSE) * size, (name, key)


@pytest.mark.parametrize("name", CASES)
def test_atoll_reads_its_own_export(name: str, tmp_path: Path, zoo: Zoo, gallery: Gallery) -> None:
    setup = of_case(name, tmp_path, zoo, gallery)
    state = stirred(setup)
    export_adapter(setup, state, tmp_path / "adapter", SUMMARY)
    values = read_adapter(setup, tmp_path / "adapter")
    torch.testing.assert_close(values, model_values(state), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["bert-pairs", "bert-learned", "gpt2-last"])
def test_sentence_transformers_loads_the_adapter(
    name: str, tmp_path: Path, zoo: Zoo, gallery: Gallery
) -> None:
    library = pytest.importorskip("sentence_transformers")
    setup = of_case(name, tmp_path, zoo, gallery)
    state = stirred(setup)
    export_adapter(setup, state, tmp_path / "adapter", SUMMARY)
    found = library.SentenceTransformer(str(tmp_path / "adapter"), device="cpu").encode(TEXTS)
    ours = torch.stack(outputs_of(setup, state, [{"text": text} for text in TEXTS]))
    torch.testing.assert_close(torch.from_numpy(found), ours.float(), rtol=0, atol=1e-5)
