"""Models that could not train as they are: no words, sight of what follows, too few positions."""

from __future__ import annotations

import os
import shutil
import socketserver
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
)

from atoll.errors import ConfigError, ModelError
from atoll.models.base import Head, load_base
from atoll.models.checks import check_causal, check_packing, check_tokenizer, reads_at_most
from atoll.models.locate import Source, locate
from tests.support.models import Zoo

KINDS = ("bert", "deberta", "gpt2", "llama", "roberta")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_tokenizer_is_refused(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    """transformers makes up a tokenizer of special tokens for most of them."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(zoo(kind)) / name, tmp_path / name)
    head = None if kind in ("gpt2", "llama") else Head(2)
    with pytest.raises(ModelError, match=r"no tokenizer|cannot be loaded as AutoTokenizer"):
        load_base(locate(str(tmp_path)), head=head)


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_with_files_pass(kind: str, zoo: Zoo) -> None:
    check_tokenizer(zoo.base(kind, labels=2).tokenizer, locate(zoo(kind)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_sees_what_follows_is_no_language_model(zoo: Zoo, dtype: str) -> None:
    with pytest.raises(ModelError, match=r"BertLMHeadModel\) reads the tokens that follow"):
        load_base(locate(zoo("bert")), dtype=dtype)
    for kind in ("gpt2", "llama"):
        load_base(locate(zoo(kind)), dtype=dtype)


def test_bert_as_a_decoder_is_a_language_model() -> None:
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=8, is_decoder=True)  # fmt: skip
    check_causal(BertLMHeadModel(config).eval(), Source("x", "x"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_in_which_texts_of_a_row_see_each_other_is_not_packed(zoo: Zoo, dtype: str) -> None:
    """A recurrent one takes no positions; BLOOM, without any of its own, is another."""
    for kind in ("gpt2", "llama"):
        check_packing(zoo.base(kind, dtype=dtype).model, Source("x", "x"))
    config = BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2)
    bloom = BloomForCausalLM(config).to(getattr(torch, dtype)).eval()
    for model in (zoo.base("mamba", dtype=dtype).model, bloom):
        with pytest.raises(ConfigError) as caught:
            check_packing(model, Source("x", "x"))
        assert str(caught.value) == (
            f"data.packing is true, but model x ({type(model).__name__}) lets a text see those "
            "before it in its sequence; set data.packing to false"
        )


def test_the_probe_leaves_the_model_as_it_was(zoo: Zoo) -> None:
    model = AutoModelForCausalLM.from_pretrained(zoo("gpt2")).eval()
    check_causal(model, Source("x", "x"))
    assert all(value.grad is None for value in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("kind", "limit"), [("bert", 64), ("roberta", 64), ("gpt2", 128)])
def test_the_longest_row_that_a_model_reads(zoo: Zoo, kind: str, limit: int) -> None:
    base = zoo.base(kind, dtype="float32", labels=2)
    base.tokenizer.model_max_length = 10**6
    if kind == "roberta":
        limit = 65  # 66 positions, and padding has the first
    assert reads_at_most(base.backbone, base.tokenizer) == limit
    model = AutoModelForMaskedLM if kind != "gpt2" else AutoModelForCausalLM
    whole = model.from_pretrained(zoo(kind)).eval()
    with torch.no_grad():
        whole(input_ids=torch.full((1, limit), 7))
        with pytest.raises((IndexError, RuntimeError)):
            whole(input_ids=torch.full((1, limit + 1), 7))
    base.tokenizer.model_max_length = 20
    assert reads_at_most(base.backbone, base.tokenizer) == 20


BROKEN = {
    "empty weights": ("model.safetensors", b"", r"its weights cannot be read \(.*\); check its"),
    "cut weights": ("model.safetensors", b"\x90\x00\x00", "its weights cannot be read"),
    "a list": ("config.json", b"[]", "a file of it has another form than expected"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, zoo: Zoo, tmp_path: Path) -> None:
    file, content, message = BROKEN[name]
    shutil.copytree(zoo("bert"), tmp_path / "model")
    (tmp_path / "model" / file).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_base(locate(str(tmp_path / "model")), head=Head(2))


def test_weights_of_another_shape_are_named(zoo: Zoo, tmp_path: Path) -> None:
    shutil.copytree(zoo("bert"), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 35', '"vocab_size": 40'))
    with pytest.raises(ModelError, match=r"weight is \(35, 32\) among its weights, but \(40, 32\)"):
        load_base(locate(str(tmp_path / "model")), head=Head(2))


LOAD = """
import sys
from atoll.errors import ConfigError, ModelError
from atoll.models.base import Head, load_base
from atoll.models.locate import locate
try:
    print(type(load_base(locate(sys.argv[1]), head=Head(2)).backbone).__name__)
except ModelError as error:
    print(error)
"""


@pytest.fixture
def asked() -> Iterator[list[int]]:
    """The port of a hub that hangs up, then that of each caller."""
    ports: list[int] = []

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            ports.append(self.client_address[1])

    with socketserver.TCPServer(("127.0.0.1", 0), HangUp) as server:
        ports.append(server.server_address[1])
        Thread(target=server.serve_forever, daemon=True).start()
        yield ports
        server.shutdown()


def _load(name: str, cache: Path, port: int) -> str:
    """In a process of its own, under a hub that does not answer."""
    env = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_CACHE": str(cache),
           "HF_HUB_OFFLINE": "0"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LOAD, name], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


ONCE = 2
"""Calls of one question: the hub's own client asks again where it was hung up on."""


def test_a_hub_that_does_not_answer_is_asked_once(asked: list[int], tmp_path: Path) -> None:
    """transformers alone asks for most of a minute."""
    message = _load("owner/model", tmp_path, asked[0])
    assert message.startswith("model owner/model is no folder here, and the hub cannot be reached")
    assert len(asked) - 1 <= ONCE
    assert "neither a folder here nor a model on the hub" in _load("no model", tmp_path, asked[0])
    assert len(asked) - 1 <= ONCE


def test_a_cached_model_needs_no_hub(asked: list[int], zoo: Zoo, tmp_path: Path) -> None:
    saved = tmp_path / "models--owner--model" / "snapshots" / ("a" * 40)
    shutil.copytree(zoo("bert"), saved)
    (tmp_path / "models--owner--model" / "refs").mkdir()
    (tmp_path / "models--owner--model" / "refs" / "main").write_text("a" * 40)
    assert _load("owner/model", tmp_path, asked[0]) == "BertForSequenceClassification"
    assert len(asked) - 1 <= ONCE
