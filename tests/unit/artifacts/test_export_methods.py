"""What each method exports loads elsewhere with Atoll's logits: by PEFT, or by the card's lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from atoll.artifacts.export import export_adapter
from atoll.artifacts.read_adapter import read_adapter
from atoll.core import State
from atoll.errors import ConfigError, ModelError
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.infer import forward_batches
from tests.support.methods import TUNERS, fits
from tests.support.models import Zoo
from tests.support.scenes import SUMMARY, largest, scene, stirred

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
]

TEXTS = ["reef tide coral", "boat", "sun moon star wind rain rope " * 6]
CLOSE = 1e-5


def logits_of(setup: Setup, state: State) -> list[Tensor]:
    """Atoll's logits of each text, [labels] or [tokens, vocabulary]."""
    examples = setup.bench.objective.encode([{"text": text} for text in TEXTS])
    found: dict[int, Tensor] = {}
    for numbers, _, logits in forward_batches(setup.bench, model_values(state), examples):
        found.update(zip(numbers, logits, strict=True))
    return [found[number] for number in range(len(TEXTS))]


def exported(setup: Setup, state: State, folder: Path) -> Path:
    export_adapter(setup, state, folder / "adapter", SUMMARY)
    return folder / "adapter"


def assert_logits(setup: Setup, ours: list[Tensor], theirs: Tensor, close: float = CLOSE) -> None:
    batch = setup.base.tokenizer(TEXTS, padding=True, truncation=True, max_length=24,
                                 return_tensors="pt")  # fmt: skip
    for row, other, length in zip(
        ours, theirs, batch["attention_mask"].sum(1).tolist(), strict=True
    ):
        if row.dim() == 2:
            row, other = row[:length], other[:length]
        assert largest(row, other) < close * max(1.0, float(row.abs().max()))


def section(adapter: dict[str, Any]) -> dict[str, Any]:
    """As a file would hold it: lists for tuples."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in adapter.items()}


@pytest.fixture(scope="session")
def bert(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint with a pooler, as BERT's own; that of the zoo has none."""
    folder = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        AutoModel.from_pretrained(zoo("bert")).save_pretrained(folder)
    AutoTokenizer.from_pretrained(zoo("bert")).save_pretrained(folder)
    return str(folder)


def own_head(bert: str) -> dict[str, Any]:
    return {"name_or_path": bert, "pooling": "model"}


PEFT = {
    "ia3": {"method": "ia3"},
    "lora-layer": {"r": 3, "layers_to_transform": [1], "target_modules": "all-linear"},
    **{method: fits(method, "bert") for method in TUNERS if method != "trainable_tokens"},
}


@pytest.mark.parametrize("name", PEFT)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, when a user loads the adapter
def test_peft_loads_a_classifier_and_atoll_reads_it(
    name: str, tmp_path: Path, zoo: Zoo, bert: str
) -> None:
    """The head of the Auto class is saved beside each type, and read back."""
    adapter = PEFT[name]
    assert adapter is not None
    setup = scene(tmp_path, zoo, model=own_head(bert), adapter={"head": "train", **adapter})
    assert setup.base.auto_class == "AutoModelForSequenceClassification"
    state = stirred(setup)
    folder = exported(setup, state, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)  # whatever peft draws, the file says otherwise
        model: Any = PeftModel.from_pretrained(plain, str(folder)).eval()
    batch = setup.base.tokenizer(TEXTS, padding=True, truncation=True, max_length=24,
                                 return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        theirs = model(**batch).logits
    assert_logits(setup, logits_of(setup, state), theirs)
    with torch.no_grad(), model.disable_adapter():
        assert largest(model(**batch).logits, theirs) > 1e-4
    torch.testing.assert_close(read_adapter(setup, folder), model_values(state), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["ia3", "dora", "vera", "fourierft"])
def test_peft_loads_a_language_model(kind: str, method: str, tmp_path: Path, zoo: Zoo) -> None:
    adapter = {"method": "ia3"} if method == "ia3" else fits(method, kind)
    assert adapter is not None
    setup = scene(tmp_path, zoo, kind, adapter=adapter)
    state = stirred(setup)
    folder = exported(setup, state, tmp_path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(zoo(kind)), str(folder))
    batch = setup.base.tokenizer(TEXTS, padding=True, truncation=True, max_length=24,
                                 return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        assert_logits(setup, logits_of(setup, state), model.eval()(**batch).logits)
    torch.testing.assert_close(read_adapter(setup, folder), model_values(state), rtol=0, atol=0)


MEAN = {"pooling": "mean"}
BOTTLENECK = {"method": "bottleneck", "placement": "houlsby", "reduction_factor": 5}
CARDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bottleneck": ("bert", MEAN, BOTTLENECK),
    "bottleneck-own-head": ("own head", {}, {**BOTTLENECK, "activation": "tanh"}),
    "bottleneck-gpt2": ("gpt2", {}, {**BOTTLENECK, "activation": "gelu"}),
    "bottleneck-llama": ("llama", {}, {"method": "bottleneck", "activation": "silu"}),
    "bottleneck-half": ("llama", {"dtype": "bfloat16"}, BOTTLENECK),
    "layers": ("bert", MEAN, {"method": "layers", "num_layers": 1}),
    "layers-own-head": ("own head", {}, {"method": "layers", "num_layers": 1}),
    "layers-gpt2": ("gpt2", {}, {"method": "layers", "num_layers": 2}),
    "layers-llama-half": ("llama", {"dtype": "bfloat16"}, {"method": "layers", "num_layers": 1}),
    "ia3": ("bert", MEAN, {"method": "ia3"}),
    "dora": ("bert", MEAN, TUNERS["dora"]),
    "trainable-tokens": ("bert", MEAN, fits("trainable_tokens", "bert") or {}),
    "dora-half": ("llama", {"dtype": "bfloat16"}, TUNERS["dora"]),
}


def of_card(name: str, folder: Path, zoo: Zoo, bert: str) -> Setup:
    kind, model, adapter = CARDS[name]
    if kind != "own head":
        return scene(folder, zoo, kind, model=model, adapter=adapter)
    return scene(folder, zoo, model=own_head(bert) | model, adapter={"head": "train", **adapter})


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


def test_the_model_cards_lines_give_the_logits(tmp_path: Path, zoo: Zoo, bert: str) -> None:
    """Plain transformers (and peft), in another process that never imports Atoll."""
    ours: dict[str, tuple[Setup, list[Tensor]]] = {}
    for name in CARDS:
        setup = of_card(name, tmp_path / name, zoo, bert)
        state = stirred(setup)
        folder = exported(setup, state, tmp_path / name)
        text = (folder / "README.md").read_text()
        (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert "atoll" not in lines
        assert ("library_name: peft" in text) == (setup.built.peft is not None)
        named = lines.replace('texts = ["a row of text"]\n', f"texts = {TEXTS!r}\n")
        assert named != lines
        (folder / "card.py").write_text(named)
        ours[name] = setup, logits_of(setup, state)
        torch.testing.assert_close(read_adapter(setup, folder), model_values(state), rtol=0, atol=0)
    (tmp_path / "driver.py").write_text(DRIVER)
    folders = [str(tmp_path / name / "adapter") for name in CARDS]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), *folders], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, (setup, rows) in ours.items():
        theirs = load_file(tmp_path / name / "adapter" / "logits.safetensors")["logits"]
        assert_logits(setup, rows, theirs, 0.05 if "half" in name else CLOSE)


def test_the_configuration_is_pefts_own(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, model=MEAN, adapter=TUNERS["vera"])
    folder = exported(setup, stirred(setup), tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "VERA"
    assert config["task_type"] == "FEATURE_EXTRACTION"
    assert config["base_model_name_or_path"] == zoo("bert")
    assert (config["r"], config["target_modules"]) == (8, ["query", "value"])
    assert "base_model.vera_A" in load_file(folder / "adapter_model.safetensors")


def test_a_head_that_peft_would_not_save_is_refused(tmp_path: Path, zoo: Zoo, bert: str) -> None:
    adapter = {"head": "train", **(fits("trainable_tokens", "bert") or {})}
    with pytest.raises(ConfigError) as caught:
        scene(tmp_path, zoo, model=own_head(bert), adapter=adapter)
    assert str(caught.value).endswith(
        ": adapter.method is trainable_tokens, beside which PEFT saves no head of the model's own "
        "class; set model.pooling to mean or cls, or use another method"
    )


def test_an_adapter_of_another_projection_is_refused(tmp_path: Path, zoo: Zoo) -> None:
    here = scene(tmp_path / "a", zoo, model=MEAN, adapter=TUNERS["vera"])
    other = {"method": "vera", "config": {"r": 8, "projection_prng_key": 5}}
    there = scene(tmp_path / "b", zoo, model=MEAN, adapter=other)
    folder = exported(here, stirred(here), tmp_path)
    with pytest.raises(ModelError) as caught:
        read_adapter(there, folder)
    assert str(caught.value) == (
        f"{folder}/adapter_model.safetensors holds another base_model.vera_A than is made here: "
        "it was trained under other settings (adapter.config) or on another base"
    )


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_files_that_do_not_fit_are_refused(change: str, tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, model=MEAN, adapter=BOTTLENECK)
    folder = exported(setup, stirred(setup), tmp_path)
    values = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.adapter_down.weight"
    if change == "missing":
        del values[name]
    elif change == "more":
        values["encoder.layer.7.output.dense.adapter_down.weight"] = values[name].clone()
    else:
        values[name] = values[name][:1].clone()
    save_file(values, folder / "model.safetensors")
    wanted = {
        "missing": f"holds no backbone.{name}, which the adapter of",
        "more": "holds backbone.encoder.layer.7.output.dense.adapter_down.weight, which has no",
        "shape": f"backbone.{name} is (1, 32), but {zoo('bert')} needs (6, 32)",
    }[change]
    with pytest.raises(ModelError, match=re.escape(wanted)):
        read_adapter(setup, folder)
