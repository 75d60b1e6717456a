"""A merged model, loaded by transformers alone, says what the trained one says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
)

from atoll.errors import ModelError
from atoll.trained.export_run import Exported, Terms, export_run
from tests.support.finished import (
    TEXTS,
    assert_says_the_same,
    encoded,
    finish,
    opened,
    said_by,
)
from tests.support.models import Zoo

# PEFT 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

OWN = {"pooling": "model"}
HALF = {"dtype": "bfloat16"}
TRAIN = {"head": "train"}

CASES: dict[str, tuple[str, dict[str, Mapping[str, Any]]]] = {
    "mean": ("bert", {"model": {"pooling": "mean"}}),
    "cls": ("bert", {"model": {"pooling": "cls", "normalize": True}, "adapter": {"head": "ridge"}}),
    "random-features": (
        "bert",
        {"model": {"pooling": "mean"}, "adapter": {"head": "ridge", "head_features": 64}},
    ),
    "head-alone": ("bert", {"model": {"pooling": "mean"}, "adapter": {"method": "none"}}),
    "bitfit": ("bert", {"model": {"pooling": "mean"}, "adapter": {"method": "bitfit"}}),
    "full": ("bert", {"model": {"pooling": "mean"}, "adapter": {"method": "full"}}),
    "own-head": ("with pooler", {"model": OWN, "adapter": {**TRAIN, "use_rslora": True, "r": 3}}),
    "own-head-fresh-pooler": ("bert", {"model": OWN, "adapter": TRAIN}),
    "own-head-alone": ("with pooler", {"model": OWN, "adapter": {"method": "none", **TRAIN}}),
    "own-head-bitfit": ("with pooler", {"model": OWN, "adapter": {"method": "bitfit", **TRAIN}}),
    "own-head-full": ("with pooler", {"model": OWN, "adapter": {"method": "full", **TRAIN}}),
    "decoder-head": ("gpt2 classifier", {"model": OWN, "adapter": TRAIN}),
    "gpt2": ("gpt2", {}),
    "gpt2-rslora": ("gpt2", {"adapter": {"use_rslora": True, "r": 3, "lora_alpha": 5}}),
    "gpt2-bitfit": ("gpt2", {"adapter": {"method": "bitfit"}}),
    "gpt2-full": ("gpt2", {"adapter": {"method": "full"}}),
    "llama": ("llama", {}),
    "llama-tied": ("tied", {}),
    "llama-tied-full": ("tied", {"adapter": {"method": "full"}}),
    "llama-tied-output": ("tied", {"adapter": {"target_modules": ["lm_head", "q_proj"]}}),
    "float64": ("bert", {"model": {"pooling": "mean", "dtype": "float64"}}),
    "half": ("bert", {"model": {"pooling": "mean", **HALF}}),
    "half-own-head": ("with pooler", {"model": {**OWN, **HALF}, "adapter": TRAIN}),
    "half-llama": ("llama", {"model": HALF}),
    "half-llama-tied": ("tied", {"model": HALF}),
    "half-full": ("llama", {"model": HALF, "adapter": {"method": "full"}}),
}
CLASSES = {"gpt2": "AutoModelForCausalLM", "llama": "AutoModelForCausalLM",
           "tied": "AutoModelForCausalLM"}  # fmt: skip

Run = Callable[[str], Path]
Merged = Callable[[str], tuple[Path, Exported]]


@pytest.fixture(scope="module")
def bases(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders that the zoo lacks: a pooler among the weights, and an output tied to the input."""
    root = tmp_path_factory.mktemp("bases")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        AutoModel.from_pretrained(zoo("bert")).save_pretrained(root / "with pooler")
        config = AutoConfig.from_pretrained(zoo("llama"))
        config.tie_word_embeddings = True
        tied = LlamaForCausalLM(config)
    for name, value in tied.named_parameters():
        if value.dim() > 1:
            value.data.mul_(1 if "embed" in name else 5)
    tied.save_pretrained(root / "tied")
    AutoTokenizer.from_pretrained(zoo("bert")).save_pretrained(root / "with pooler")
    AutoTokenizer.from_pretrained(zoo("llama")).save_pretrained(root / "tied")
    return {name: str(root / name) for name in ("with pooler", "tied")}


@pytest.fixture(scope="module")
def run(zoo: Zoo, bases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of each case, made when it is first asked for."""
    root = tmp_path_factory.mktemp("runs")

    def made(name: str) -> Path:
        if not (root / name).exists():
            kind, sections = CASES[name]
            named = {"model": {"name_or_path": bases[kind]}} if kind in bases else {}
            if kind == "gpt2 classifier":
                named = {"model": {"name_or_path": zoo("gpt2")}}
            model = {**named.get("model", {}), **sections.get("model", {})}
            scene = {"tied": "llama"}.get(kind, kind if kind in CLASSES else "bert")
            finish(root / name, zoo, scene, **{**sections, "model": model})
        return root / name / "run"

    return made


@pytest.fixture(scope="module")
def merged(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Merged:
    """The merged folder of each case, and what exporting it said."""
    root = tmp_path_factory.mktemp("merged")
    found: dict[str, Exported] = {}

    def made(name: str) -> tuple[Path, Exported]:
        if name not in found:
            found[name] = export_run(run(name), root / name, Terms(merge=True), note=_silent)
        return root / name, found[name]

    return made


def _silent(text: str) -> None:
    pass


# Without Atoll, and without PEFT: it cannot be imported.
DRIVER = """
import os, runpy, sys, warnings
sys.modules["peft"] = None
from safetensors.torch import save_file
warnings.simplefilter("error")
for folder in sys.argv[1:]:
    os.chdir(folder)
    found = runpy.run_path("card.py")
    save_file({"logits": found["logits"].float().contiguous(),
               "mask": found["batch"]["attention_mask"]}, "../" + os.path.basename(folder) + ".st")
assert not [name for name in sys.modules if name.split(".")[0] == "atoll"]
"""


def card_lines(folder: Path) -> str:
    """The Python block of the model card, on our texts."""
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert block.count('texts = ["a row of text"]\n') == 1
    return block.replace('texts = ["a row of text"]\n', f"texts = {TEXTS!r}\n")


def test_the_cards_lines_give_the_trained_models_logits(
    merged: Merged, run: Run, tmp_path: Path
) -> None:
    for name in CASES:
        folder, found = merged(name)
        assert found.verified.gap.relative < (0.05 if found.dtype == "bfloat16" else 1e-5)
        assert found.verified.gap.largest > 0.1
        (folder / "card.py").write_text(card_lines(folder))
    (tmp_path / "driver.py").write_text(DRIVER)
    folders = [str(merged(name)[0]) for name in CASES]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), *folders], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in CASES:
        folder, _ = merged(name)
        theirs = load_file(folder.parent / f"{name}.st")
        ours = [row.float() for row in said_by(opened(run(name)))]
        lengths = theirs["mask"].sum(1).tolist()
        # Both compute in bfloat16 then, each in an order of its own.
        half = name.startswith("half") and "full" not in name
        assert_says_the_same(ours, theirs["logits"], lengths, close=0.15 if half else 1e-5)


@pytest.mark.parametrize("name", ["mean", "own-head-bitfit", "gpt2", "llama-tied-output"])
def test_the_base_model_says_something_else(name: str, run: Run) -> None:
    """Otherwise nothing would have to be merged for the tests above."""
    trained = opened(run(name))
    ours = said_by(trained)
    idle = {name: torch.zeros_like(value) for name, value in trained.values.items()}
    others = said_by(type(trained)(trained.path, trained.setup, idle, trained.kind))
    assert max(float((a - b).abs().max()) for a, b in zip(ours, others, strict=True)) > 0.05


@pytest.mark.parametrize("name", ["llama", "half-llama"])
def test_a_weight_is_added_to_in_float32_and_rounded_once(
    name: str, merged: Merged, run: Run, zoo: Zoo
) -> None:
    stored = load_file(merged(name)[0] / "model.safetensors")
    adapter = load_file(run(name) / "adapter" / "adapter_model.safetensors")
    base = load_file(Path(zoo("llama")) / "model.safetensors")
    dtype = torch.bfloat16 if name.startswith("half") else torch.float32
    site = "model.layers.1.mlp.down_proj"
    a = adapter[f"base_model.model.{site}.lora_A.weight"]
    b = adapter[f"base_model.model.{site}.lora_B.weight"]
    # α/r = 16/8; a bfloat16 base had its weights rounded when it was loaded.
    whole = base[f"{site}.weight"].to(dtype).float() + 2 * (b @ a)
    assert stored[f"{site}.weight"].dtype == dtype
    close = 2**-8 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(stored[f"{site}.weight"].float(), whole, rtol=close, atol=1e-6)
    assert torch.equal(stored["model.norm.weight"], base["model.norm.weight"].to(dtype))


def test_a_tie_stays(merged: Merged, bases: dict[str, str]) -> None:
    for name in ("llama-tied", "llama-tied-full", "half-llama-tied", "gpt2", "gpt2-full"):
        folder, _ = merged(name)
        assert "lm_head.weight" not in load_file(folder / "model.safetensors")
        assert AutoConfig.from_pretrained(folder).tie_word_embeddings
    before = load_file(Path(bases["tied"]) / "model.safetensors")["model.embed_tokens.weight"]
    lora = load_file(merged("llama-tied")[0] / "model.safetensors")
    assert torch.equal(lora["model.embed_tokens.weight"], before)
    full = load_file(merged("llama-tied-full")[0] / "model.safetensors")
    assert not torch.equal(full["model.embed_tokens.weight"], before)


def test_an_adapter_on_a_tied_output_leaves_the_embedding_as_it_was(
    merged: Merged, run: Run, bases: dict[str, str]
) -> None:
    folder, _ = merged("llama-tied-output")
    stored = load_file(folder / "model.safetensors")
    before = load_file(Path(bases["tied"]) / "model.safetensors")["model.embed_tokens.weight"]
    adapter = load_file(run("llama-tied-output") / "adapter" / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.lm_head.lora_{x}.weight"] for x in "AB")
    assert torch.equal(stored["model.embed_tokens.weight"], before)
    torch.testing.assert_close(stored["lm_head.weight"], before + 2 * (b @ a))
    assert not AutoConfig.from_pretrained(folder).tie_word_embeddings
    assert float((b @ a).abs().max()) > 0.01


@pytest.mark.parametrize("name", CASES)
def test_what_a_user_reads_in_its_files(name: str, merged: Merged, run: Run) -> None:
    folder, found = merged(name)
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == found.dtype
    # A full model trains in float32, whatever its base was.
    half = name.startswith("half") and "full" not in name
    assert found.dtype == ("bfloat16" if half else "float64" if name == "float64" else "float32")
    facts = json.loads((folder / "atoll.json").read_text())
    assert facts == {**json.loads((run(name) / "adapter/atoll.json").read_text()), "merged": True}
    if facts["auto_class"] == "AutoModelForCausalLM":
        assert config.get("use_cache", True)
    if facts["auto_class"] == "AutoModelForSequenceClassification":
        assert list(config["id2label"].values()) == facts["labels"]
    assert not (folder / "adapter_config.json").exists()
    assert len(encoded(AutoTokenizer.from_pretrained(folder))["input_ids"]) == len(TEXTS)


def test_a_model_that_was_trained_on_packed_rows(zoo: Zoo, tmp_path: Path) -> None:
    """Read back with its cache on, it would take the texts of a row for one text."""
    run = finish(tmp_path, zoo, "gpt2", data={"packing": True})
    found = export_run(run, tmp_path / "m", Terms(merge=True), note=_silent)
    assert found.verified.gap.relative < 1e-5
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert plain.config.use_cache
    base = AutoModelForCausalLM.from_pretrained(zoo("gpt2"))
    adapted = PeftModel.from_pretrained(base, run / "adapter").eval()
    batch = encoded(AutoTokenizer.from_pretrained(tmp_path / "m"))
    with torch.no_grad():
        ours, theirs = (model(**batch).logits for model in (adapted, plain))
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_it_can_be_asked_for_another_precision(run: Run, tmp_path: Path) -> None:
    terms = Terms(merge=True, dtype="bfloat16")
    found = export_run(run("gpt2"), tmp_path / "m", terms, note=_silent)
    assert (found.dtype, found.verified.tolerance) == ("bfloat16", 0.1)
    assert 1e-4 < found.verified.gap.relative < 0.05
    values = load_file(tmp_path / "m" / "model.safetensors").values()
    assert {value.dtype for value in values} == {torch.bfloat16}


def test_a_model_that_differs_more_than_it_may_is_not_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    place = tmp_path / "work" / "m"
    with pytest.raises(ModelError) as error:
        export_run(run("llama"), place, Terms(merge=True, tolerance=1e-12), note=_silent)
    assert re.search(
        r"outputs differ by up to \S+ where the largest is \S+, \S+ of it on 12 rows, and the "
        r"tolerance is 1e-12\. Nothing was written",
        str(error.value),
    )
    # Rounding is told apart from merging, and an earlier export stands until a new one is verified.
    export_run(run("llama"), place, Terms(), note=_silent)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    terms = Terms(merge=True, tolerance=1e-5, dtype="bfloat16", force=True)
    with pytest.raises(ModelError, match="the merged model, read back, is not the trained one"):
        export_run(run("llama"), place, terms, note=_silent)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["m"]
