"""Tiny models of real Hugging Face classes, with tokenizers, saved as a user would save them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from atoll.models.base import Base, Head, load_base
from atoll.models.locate import locate

__all__ = ["CHAT", "WORDS", "Zoo", "stir_model", "word_pieces"]

WORDS = [
    "reef", "tide", "coral", "lagoon", "island", "palm", "sand", "boat", "net", "fish", "wave",
    "storm", "sun", "moon", "star", "wind", "rain", "rope", "sail", "anchor", "gull", "crab",
    "shell", "pearl", "turtle", "whale", "drift", "shore", "dune", "harbour",
]  # fmt: skip

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Zoo:
    """Folders of models; `zoo("bert")` is a path, `zoo.base("bert", …)` loads it through Atoll."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, kind: str) -> str:
        folder = self.root / kind
        if not folder.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(11)
                model, tokenizer = _MAKERS[kind]()
                stir_model(model)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return str(folder)

    def base(self, kind: str, *, dtype: str = "float64", labels: int | None = None,
             pooling: Any = "mean", normalize: bool | None = None) -> Base:  # fmt: skip
        """A classifier when there are labels, else a causal language model."""
        head = None if labels is None else Head(labels, pooling, normalize, seed=3)
        return load_base(locate(self(kind)), dtype=dtype, head=head)


def stir_model(model: PreTrainedModel) -> None:
    """Fresh models have zero biases and tiny weights, which would hide a missing term."""
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.1)
        elif value.dim() > 1:
            value.data.mul_(5)


def word_pieces() -> PreTrainedTokenizerFast:
    """[CLS] words [SEP], as BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def letters(*, chat: bool = False) -> PreTrainedTokenizerFast:
    """Bytes, with an end and no padding token, as GPT-2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<|end|>"])}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", model_max_length=128
    )
    if chat:
        made.chat_template = CHAT
    return made


def _bert_config(tokenizer: PreTrainedTokenizerFast) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip


def _bert() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = word_pieces()
    return BertForMaskedLM(_bert_config(tokenizer)), tokenizer


def _bert_with_pooler() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = word_pieces()
    return BertModel(_bert_config(tokenizer)), tokenizer


def _roberta() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = word_pieces()
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=66, pad_token_id=0, type_vocab_size=1,
    )  # fmt: skip
    return RobertaForMaskedLM(config), tokenizer


def _deberta() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = word_pieces()
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=64, pad_token_id=0, relative_attention=True,
        pos_att_type=["p2c", "c2p"], position_buckets=8,
    )  # fmt: skip
    return DebertaV2ForMaskedLM(config), tokenizer


def _gpt2() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = letters()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128,
        bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    return GPT2LMHeadModel(config), tokenizer


def _llama() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = letters(chat=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizer


def _mamba() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = letters()
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4,
        bos_token_id=256, eos_token_id=256, pad_token_id=256,
    )  # fmt: skip
    return MambaForCausalLM(config), tokenizer


_MAKERS: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerFast]]] = {
    "bert": _bert,
    "bert-with-pooler": _bert_with_pooler,
    "deberta": _deberta,
    "gpt2": _gpt2,
    "llama": _llama,
    "mamba": _mamba,
    "roberta": _roberta,
}
