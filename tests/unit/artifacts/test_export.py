"""What is exported loads elsewhere and gives Atoll's logits: PEFT, and the model card's lines."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from atoll.artifacts.export import export_adapter
from atoll.core import State
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.infer import forward_batches
from atoll.trained.load_run import read_adapter
from tests.support.models import Zoo
from tests.support.scenes import SUMMARY, largest, scene, stirred

# Of several lengths, one longer than max_length; all over one batch, so that padding is met.
TEXTS = ["reef tide coral", "boat", "sun moon star wind rain rope " * 6, "unknown words here"]
CLOSE = 1e-5

# PEFT 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def logits_of(setup: Setup, state: State) -> list[Tensor]:
    """Atoll's logits of each text, [labels] or [tokens, vocabulary]."""
    rows = [{"text": text} for text in TEXTS]
    examples = setup.bench.objective.encode(rows)
    found: dict[int, Tensor] = {}
    for numbers, _, logits in forward_batches(setup.bench, model_values(state), examples):
        for number, row in zip(numbers, logits, strict=True):
            found[number] = row
    return [found[number] for number in range(len(TEXTS))]


def exported(setup: Setup, state: State, folder: Path) -> Path:
    export_adapter(setup, state, folder / "adapter", SUMMARY)
    return folder / "adapter"


def encoded(setup: Setup) -> Any:
    return setup.base.tokenizer(
        TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt"
    )


def assert_logits(
    setup: Setup, ours: Sequence[Tensor], theirs: Tensor, close: float = CLOSE
) -> None:
    """At every token of the texts; training adds an end to a text, and a batch adds padding."""
    lengths = encoded(setup)["attention_mask"].sum(1).tolist()
    for row, other, length in zip(ours, theirs, lengths, strict=True):
        if row.dim() == 2:
            row, other = row[:length], other[:length]
        assert largest(row, other) < close * max(1.0, float(row.abs().max()))


@pytest.fixture(scope="session")
def bert(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint with a pooler, as BERT's own; that of the zoo has none."""
    folder = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        AutoModel.from_pretrained(zoo("bert")).save_pretrained(folder)
    AutoTokenizer.from_pretrained(zoo("bert")).save_pretrained(folder)
    return str(folder)


def own_head(bert: str, **adapter: Any) -> dict[str, Any]:
    """Sections for a classifier of transformers, head and all."""
    model = {"name_or_path": bert, "pooling": "model"}
    return {"model": model, "adapter": {"head": "train", **adapter}}


def test_peft_loads_a_classifier_with_the_auto_class_own_head(
    tmp_path: Path, zoo: Zoo, bert: str
) -> None:
    setup = scene(tmp_path, zoo, **own_head(bert))
    assert setup.base.auto_class == "AutoModelForSequenceClassification"
    state = stirred(setup)
    folder = exported(setup, state, tmp_path)
    labels = json.loads((folder / "atoll.json").read_text())["labels"]
    plain = AutoModelForSequenceClassification.from_pretrained(
        setup.base.source.path, num_labels=len(labels)
    )
    model = PeftModel.from_pretrained(plain, str(folder)).eval()
    ours = logits_of(setup, state)
    with torch.no_grad():
        theirs = model(**encoded(setup)).logits
    assert_logits(setup, ours, theirs)
    assert labels == list(setup.data.labels or ())
    named = [labels[int(row.argmax())] for row in theirs]
    assert named == [labels[int(row.argmax())] for row in ours]
    # Every adapter value is used: the model without it says something else.
    with torch.no_grad(), model.disable_adapter():
        assert largest(model(**encoded(setup)).logits, theirs) > 0.01


def test_layers_that_the_checkpoint_lacks_are_exported(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, **own_head(zoo("bert")))
    state = stirred(setup)
    plain = AutoModelForSequenceClassification.from_pretrained(zoo("bert"), num_labels=4)
    model = PeftModel.from_pretrained(plain, str(exported(setup, state, tmp_path))).eval()
    with torch.no_grad():
        assert_logits(setup, logits_of(setup, state), model(**encoded(setup)).logits)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_the_files_are_those_that_peft_writes(
    kind: str, tmp_path: Path, zoo: Zoo, bert: str
) -> None:
    """Loaded by PEFT and saved again, the tensors have the same names and values."""
    setup = scene(tmp_path, zoo, kind, **(own_head(bert) if kind == "bert" else {}))
    folder = exported(setup, stirred(setup), tmp_path)
    auto = AutoModelForCausalLM if kind != "bert" else AutoModelForSequenceClassification
    options = {"num_labels": len(setup.data.labels)} if setup.data.labels else {}
    plain = auto.from_pretrained(setup.base.source.path, **options)
    PeftModel.from_pretrained(plain, str(folder)).save_pretrained(str(tmp_path / "again"))
    ours = load_file(folder / "adapter_model.safetensors")
    theirs = load_file(tmp_path / "again" / "adapter_model.safetensors")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0)
    config = json.loads((folder / "adapter_config.json").read_text())
    again = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    odd = {k for k in config.keys() | again.keys() if config.get(k) != again.get(k)}
    assert odd <= {"target_modules", "auto_mapping", "modules_to_save"}
    assert set(config["modules_to_save"] or ()) <= set(again["modules_to_save"] or ())
    assert sorted(config["target_modules"]) == sorted(again["target_modules"])


CARDS: dict[str, tuple[str, dict[str, Mapping[str, Any]]]] = {
    "pooled-mean": ("bert", {"model": {"pooling": "mean"}}),
    "pooled-cls-normalised": (
        "bert", {"model": {"pooling": "cls", "normalize": True}, "adapter": {"head": "ridge"}},
    ),
    "random-features": (
        "bert",
        {"model": {"pooling": "mean"}, "adapter": {"head": "ridge", "head_features": 64}},
    ),
    "head-alone": ("bert", {"model": {"pooling": "mean"}, "adapter": {"method": "none"}}),
    "bitfit": ("bert", {"model": {"pooling": "mean"}, "adapter": {"method": "bitfit"}}),
    "bitfit-own-head": ("own head", {"adapter": {"method": "bitfit"}}),
    "full": ("bert", {"model": {"pooling": "mean"}, "adapter": {"method": "full"}}),
    "full-own-head": ("own head", {"adapter": {"method": "full"}}),
    "full-gpt2": ("gpt2", {"adapter": {"method": "full"}}),
    "bitfit-gpt2": ("gpt2", {"adapter": {"method": "bitfit"}}),
    "lora-own-head": ("own head", {}),
    "head-alone-own-head": ("own head", {"adapter": {"method": "none"}}),
    "lora-gpt2": ("gpt2", {}),
    "lora-llama": ("llama", {}),
    "float64-lora": ("bert", {"model": {"pooling": "mean", "dtype": "float64"}}),
    "half-lora": (
        "bert", {"model": {"pooling": "mean", "normalize": True, "dtype": "bfloat16"}},
    ),
    "half-random-features": (
        "bert",
        {"model": {"pooling": "cls", "dtype": "bfloat16"},
         "adapter": {"head": "ridge", "head_features": 64}},
    ),
    "half-bitfit": ("bert", {"model": {"pooling": "mean", "dtype": "bfloat16"},
                             "adapter": {"method": "bitfit"}}),
    "half-full": ("bert", {"model": {"pooling": "mean", "dtype": "bfloat16"},
                           "adapter": {"method": "full"}}),
    "half-own-head": (
        "bert", {"model": {"pooling": "model", "dtype": "bfloat16"}, "adapter": {"head": "train"}},
    ),
    "half-full-own-head": (
        "bert", {"model": {"pooling": "model", "dtype": "bfloat16"},
                 "adapter": {"method": "full", "head": "train"}},
    ),
    "half-lora-gpt2": ("gpt2", {"model": {"dtype": "bfloat16"}}),
    "half-full-llama": ("llama", {"model": {"dtype": "bfloat16"}, "adapter": {"method": "full"}}),
}  # fmt: skip


def of_card(name: str, folder: Path, zoo: Zoo, bert: str) -> Setup:
    kind, sections = CARDS[name]
    if kind != "own head":
        return scene(folder, zoo, kind, **sections)
    return scene(folder, zoo, **own_head(bert, **sections.get("adapter", {})))


DRIVER = """
import os, runpy, sys, warnings
from safetensors.torch import save_file
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
for folder in sys.argv[1:]:
    os.chdir(folder)
    found = runpy.run_path("card.py")
    save_file({"logits": found["logits"].contiguous()}, "logits.safetensors")
"""


def card_lines(folder: Path) -> str:
    """The Python block of the model card, on our texts."""
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert block.count('texts = ["a row of text"]\n') == 1
    return block.replace('texts = ["a row of text"]\n', f"texts = {TEXTS!r}\n")


def test_the_model_cards_lines_give_the_logits(tmp_path: Path, zoo: Zoo, bert: str) -> None:
    """Plain transformers and peft, in another process that never imports Atoll."""
    ours: dict[str, tuple[Setup, list[Tensor]]] = {}
    for name in CARDS:
        setup = of_card(name, tmp_path / name, zoo, bert)
        state = stirred(setup)
        folder = exported(setup, state, tmp_path / name)
        lines = card_lines(folder)
        assert "atoll" not in lines
        (folder / "card.py").write_text(lines)
        ours[name] = setup, logits_of(setup, state)
    (tmp_path / "driver.py").write_text(DRIVER)
    folders = [str(tmp_path / name / "adapter") for name in CARDS]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), *folders], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, (setup, rows) in ours.items():
        theirs = load_file(tmp_path / name / "adapter" / "logits.safetensors")["logits"]
        card = (tmp_path / name / "adapter" / "README.md").read_text()
        assert_logits(setup, rows, theirs, 0.05 if "within 5 % of the largest" in card else CLOSE)
        assert ("within 5 %" in card) == (name.startswith("half") and "full" not in name)


@pytest.mark.parametrize("name", CARDS)
def test_atoll_reads_its_own_export(name: str, tmp_path: Path, zoo: Zoo, bert: str) -> None:
    setup = of_card(name, tmp_path, zoo, bert)
    state = stirred(setup)
    values = read_adapter(setup, exported(setup, state, tmp_path))
    torch.testing.assert_close(values, model_values(state), rtol=0, atol=0)


def test_the_card_names_where_the_base_comes_from(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, model={"pooling": "mean"})
    source = replace(setup.base.source, revision="v1.2")
    setup = replace(setup, base=replace(setup.base, source=source))
    card = (exported(setup, setup.start.server, tmp_path) / "README.md").read_text()
    assert card.count('base, revision="v1.2"') == 2
    assert 'base, revision="v1.2", dtype=torch.float32' in card
    assert f'base_model: "{zoo("bert")}"' in card
    assert "| local only, pooled | not measured, 0.2500 |" in card


def test_whatever_a_path_is_called_the_card_can_be_read(tmp_path: Path, zoo: Zoo) -> None:
    name = str(tmp_path / 'x: "y" # z')
    setup = scene(tmp_path, zoo, model={"pooling": "mean"})
    source = replace(setup.base.source, hub_id=name, revision='"; import os')
    setup = replace(setup, base=replace(setup.base, source=source))
    card = (exported(setup, setup.start.server, tmp_path) / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == name
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    lines = ast.parse(block).body
    given = {ast.unparse(one.targets[0]): one.value for one in lines if isinstance(one, ast.Assign)}
    assert ast.literal_eval(given["base"]) == name
    assert not any("os" in ast.unparse(one) for one in lines if isinstance(one, ast.Import))
