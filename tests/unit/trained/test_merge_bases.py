"""Bases that need care: quantised weights, weights that changed, adapters that have no place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from atoll.errors import ModelError, RunError
from atoll.trained.export_run import Terms, export_run
from atoll.trained.merge import dress
from atoll.trained.outputs import batches_to_compare, gap_between, outputs_of
from atoll.trained.quantised import dequantise, is_quantised
from tests.support.finished import (
    assert_says_the_same,
    encoded,
    finish,
    opened,
    said_by,
)
from tests.support.models import Zoo

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # bitsandbytes tells of each product that it computes in float16.
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
]


def _silent(text: str) -> None:
    pass


def eight_bits(kind: str, zoo: Zoo, settings: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(zoo(kind), quantization_config=settings)


@pytest.mark.parametrize("method", ["lora", "ia3", "vera"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_base_of_8_bits_is_made_plain_and_merged(
    kind: str, method: str, tmp_path: Path, zoo: Zoo
) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    base = tmp_path / "base"
    eight_bits(kind, zoo, BitsAndBytesConfig(load_in_8bit=True)).save_pretrained(base)
    AutoTokenizer.from_pretrained(zoo(kind)).save_pretrained(base)
    assert torch.int8 in {value.dtype for value in load_file(base / "model.safetensors").values()}
    adapter = {"method": method}
    run = finish(tmp_path, zoo, kind, model={"name_or_path": str(base)}, adapter=adapter)
    ours = said_by(opened(run))
    found = export_run(run, tmp_path / "m", Terms(merge=True), note=_silent)
    assert found.verified.gap.relative < 1e-5
    # It rounds what goes into a layer, too.
    assert found.verified.quantised is not None
    assert 1e-3 < found.verified.quantised.relative < 0.1
    stored = load_file(tmp_path / "m" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}
    assert "quantization_config" not in json.loads((tmp_path / "m" / "config.json").read_text())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    if kind == "gpt2":
        assert isinstance(plain.transformer.h[0].mlp.c_fc, Conv1D)
    batch = encoded(AutoTokenizer.from_pretrained(tmp_path / "m"))
    with torch.no_grad():
        theirs = plain(**batch).logits
    assert_says_the_same(ours, theirs, batch["attention_mask"].sum(1).tolist(), close=0.1)
    with pytest.raises(ModelError, match="the base model, dequantised, is another one"):
        export_run(run, tmp_path / "n", Terms(merge=True, tolerance=1e-4), note=_silent)
    # The adapter by itself goes on the quantised base.
    copied = export_run(run, tmp_path / "a", Terms(), note=_silent)
    assert copied.verified.gap.relative < 0.01


@pytest.fixture
def tied(zoo: Zoo, tmp_path: Path) -> str:
    """LLaMA with its embedding for an output layer."""
    config = AutoConfig.from_pretrained(zoo("llama"))
    config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(zoo("llama")).save_pretrained(tmp_path / "tied")
    return str(tmp_path / "tied")


def test_a_rounded_base_with_a_tied_output(tied: str, tmp_path: Path, zoo: Zoo) -> None:
    """The adapted output layer gets weights of its own; the embedding stays as it was."""
    pytest.importorskip("torchao")
    model = {"name_or_path": tied, "load_in_8bit": True}
    adapter = {"target_modules": ["lm_head", "q_proj"]}
    run = finish(tmp_path, zoo, "llama", model=model, adapter=adapter)
    found = export_run(run, tmp_path / "m", Terms(merge=True), note=_silent)
    assert found.verified.gap.relative < 1e-5
    stored = load_file(tmp_path / "m" / "model.safetensors")
    before = load_file(Path(tied) / "model.safetensors")
    assert "lm_head.weight" not in before
    assert torch.equal(stored["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert not torch.equal(stored["lm_head.weight"], before["model.embed_tokens.weight"])
    half = Terms(merge=True, dtype="bfloat16")
    assert export_run(run, tmp_path / "h", half, note=_silent).verified.gap.relative < 0.05


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_base_that_is_rounded_when_it_is_loaded(method: str, tmp_path: Path, zoo: Zoo) -> None:
    """torchao rounds weights alone, so that a merged model says exactly the same."""
    pytest.importorskip("torchao")
    run = finish(tmp_path, zoo, "llama", model={"load_in_8bit": True}, adapter={"method": method})
    ours = said_by(opened(run))
    found = export_run(run, tmp_path / "m", Terms(merge=True), note=_silent)
    assert found.verified.gap.relative < 1e-5
    assert found.verified.quantised is not None
    assert found.verified.quantised.relative < 1e-5
    stored = load_file(tmp_path / "m" / "model.safetensors")
    base = load_file(Path(zoo("llama")) / "model.safetensors")
    name = "model.layers.0.self_attn.k_proj.weight"
    # Rounded in rows, each by its own scale, before the adapter was added.
    assert not torch.equal(stored[name], base[name])
    batch = encoded(AutoTokenizer.from_pretrained(tmp_path / "m"))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m")(**batch).logits
    assert_says_the_same(ours, theirs, batch["attention_mask"].sum(1).tolist(), close=1e-5)
    assert export_run(run, tmp_path / "a", Terms(), note=_silent).verified.gap.relative < 1e-5


def test_weights_of_torchao_are_made_plain(tmp_path: Path, zoo: Zoo) -> None:
    """It rounds weights alone, so that outputs stay."""
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    model = eight_bits("llama", zoo, TorchAoConfig(quantization.Int8WeightOnlyConfig()))
    ids = torch.arange(40).view(4, 10)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        dequantise(model)
        after = model(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert {type(value) for value in model.parameters()} == {torch.nn.Parameter}
    assert not is_quantised(model)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=ids).logits
    torch.testing.assert_close(again, after)


def test_a_gguf_file_becomes_a_folder_of_plain_weights(tmp_path: Path, zoo: Zoo) -> None:
    """Read from one, weights are plain already; only the mark of the quantiser has to go."""
    gguf = pytest.importorskip("transformers.quantizers.quantizer_gguf")
    model = AutoModelForCausalLM.from_pretrained(zoo("llama"))
    model.hf_quantizer = gguf.GgufHfQuantizer(gguf.GgufConfig())
    model.is_quantized = True
    model.config.quantization_config = gguf.GgufConfig()
    with pytest.raises(ValueError, match="not serializable"):
        model.save_pretrained(tmp_path)
    dequantise(model)
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


@pytest.fixture(scope="module")
def run(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier on a base of its own, which a test may change."""
    root = tmp_path_factory.mktemp("run")
    shutil.copytree(zoo("bert"), root / "base")
    return finish(
        root, zoo, "bert", model={"name_or_path": str(root / "base"), "pooling": "model"},
        adapter={"head": "train"},
    )  # fmt: skip


def test_another_base_is_refused(run: Path, tmp_path: Path) -> None:
    file = run.parent / "base" / "model.safetensors"
    held = file.read_bytes()
    weights = load_file(file)
    weights["bert.encoder.layer.0.output.dense.bias"][0] += 1
    try:
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"has other weights than when .* was trained"):
            export_run(run, tmp_path / "m", Terms(merge=True), note=_silent)
    finally:
        file.write_bytes(held)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_must_bring_what_the_checkpoint_lacked(zoo: Zoo, tmp_path: Path) -> None:
    """Atoll drew the pooler, and a user would draw another: its absence must show."""
    run = finish(tmp_path, zoo, "bert", model={"pooling": "model"}, adapter={"head": "train"})
    trained = opened(run)
    assert any("pooler" in name for name in trained.setup.base.fresh)
    batches = batches_to_compare(trained.setup, made_up=True)
    ours = outputs_of(trained.setup.bench.model, trained.values, batches)
    trained.setup.bench.model.close()
    adapter = run / "adapter"
    values = load_file(adapter / "adapter_model.safetensors")
    kept = {name: value for name, value in values.items() if "pooler.dense" not in name}
    assert len(kept) == len(values) - 2
    save_file(kept, adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["modules_to_save"] = ["classifier"]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    plain = dress(trained.setup, adapter)
    assert gap_between(ours, outputs_of(plain, {}, batches)).relative > 0.01


def test_the_adapter_folder_is_copied_whole(run: Path, tmp_path: Path) -> None:
    (run / "adapter" / "notes.txt").write_text("kept")
    found = export_run(run, tmp_path / "a", Terms(), note=_silent)
    assert found.verified.gap.relative < 1e-5
    assert found.bytes == sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    for path in (run / "adapter").iterdir():
        same = (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()
        assert same == (path.name != "README.md")


def test_rows_that_are_not_at_hand_are_made_up(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "experiment.yaml"
    file.write_text(file.read_text().replace(str(run.parent / "data"), "/nowhere"))
    with_rows = export_run(run, tmp_path / "a", Terms(), note=_silent)
    without = export_run(tmp_path / "run", tmp_path / "b", Terms(), note=_silent)
    assert (with_rows.made_up, without.made_up) == (False, True)
    assert (with_rows.verified.gap.rows, without.verified.gap.rows) == (12, 6)


def test_places_that_must_stay(run: Path, tmp_path: Path) -> None:
    for place, words in (
        (run / "adapter", "holds the run"),
        (run / "adapter" / "m", "lies in the adapter of the run"),
        (run, "files that are not of an export"),
    ):
        with pytest.raises(RunError, match=words):
            export_run(run, place, Terms(force=True), note=_silent)
    # An export that has become the base of a run is not replaced by it.
    (run.parent / "base" / "atoll.json").write_text("{}")
    with pytest.raises(RunError, match="holds the base model of the run"):
        export_run(run, run.parent / "base", Terms(force=True), note=_silent)
    (run.parent / "base" / "atoll.json").unlink()
    names = {path.name for path in run.parent.iterdir()}
    assert names == {"base", "data", "experiment.yaml", "run"}
