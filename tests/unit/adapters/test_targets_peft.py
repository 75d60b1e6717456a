"""Which modules are adapted: PEFT's rules, and a sentence for everything that does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from peft.utils.other import get_pattern_key
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from atoll.adapters.targets import bias_modules, by_pattern, linear_targets
from atoll.errors import ModelError
from tests.support.models import Zoo

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

MODELS = {
    "bert": (AutoModel, {}),
    "bert-classifier": (AutoModelForSequenceClassification, {"num_labels": 3}),
    "gpt2": (AutoModelForCausalLM, {}),
    "llama": (AutoModelForCausalLM, {}),
}
RULES: list[tuple[str, Any]] = [
    ("bert", "all-linear"),
    ("bert", ["query", "value"]),
    ("bert", ["dense"]),
    ("bert", ["attention.output.dense", "encoder.layer.1.output.dense"]),
    ("bert", r".*layer\.0\..*\.(query|key)"),
    ("bert", r"encoder\.layer\.\d+\.output\.dense"),
    ("bert-classifier", "all-linear"),
    ("bert-classifier", ["query", "pooler.dense"]),
    ("gpt2", "all-linear"),
    ("gpt2", ["c_attn"]),
    ("gpt2", ["mlp.c_proj", "c_fc"]),
    ("gpt2", r".*h\.1\..*"),
    ("llama", "all-linear"),
    ("llama", ["q_proj", "v_proj", "lm_head"]),
    ("llama", r".*\.(gate|up)_proj"),
]


def _load(zoo: Zoo, kind: str) -> Any:
    auto, options = MODELS[kind]
    return auto.from_pretrained(zoo(kind.split("-")[0]), **options)


@pytest.mark.parametrize(("kind", "rule"), RULES)
def test_the_same_modules_as_peft(zoo: Zoo, kind: str, rule: Any) -> None:
    model = _load(zoo, kind)
    # PEFT's own all-linear leaves out the output embedding, and for SEQ_CLS the classifier.
    leave_out = ["lm_head"] if kind in ("gpt2", "llama") else ["classifier"]
    ours = linear_targets(model, rule, leave_out=leave_out)
    config = LoraConfig(target_modules=rule, fan_in_fan_out=kind == "gpt2",
                        task_type="SEQ_CLS" if "classifier" in kind else None)  # fmt: skip
    if isinstance(rule, str) and kind == "gpt2" and rule != "all-linear":
        # This regular expression also names blocks and norms, which PEFT cannot adapt.
        expected = [
            name
            for name, module in model.named_modules()
            if name.startswith("transformer.h.1.") and isinstance(module, Conv1D)
        ]
    else:
        peft = get_peft_model(model, config)
        expected = [
            name.removeprefix("base_model.model.")
            for name, module in peft.named_modules()
            if hasattr(module, "lora_A") and module.lora_A
        ]
    assert sorted(ours) == sorted(expected)
    assert ours


@pytest.mark.parametrize(("rule", "message"), [
    (["qeury"], "adapter.target_modules 'qeury' matches no linear layer of the model; did you mean "
     "'query'? Its linear layers end in: dense, key, query, value"),
    (["query", "zzz"], "adapter.target_modules 'zzz' matches no linear layer of the model. "
     "Its linear layers end in: dense, key, query, value"),
    (["LayerNorm"], "adapter.target_modules 'LayerNorm' matches no linear layer of the model. "
     "Its linear layers end in: dense, key, query, value"),
    (["uery"], "adapter.target_modules 'uery' matches no linear layer of the model; did you mean "
     "'query'? Its linear layers end in: dense, key, query, value"),
    ("layer", "adapter.target_modules 'layer' matches no linear layer of the model; did you mean "
     "'value'? Its linear layers end in: dense, key, query, value"),
    ([], "adapter.target_modules [] matches no linear layer of the model. "
     "Its linear layers end in: dense, key, query, value"),
])  # fmt: skip
def test_matching_nothing_names_what_there_is(zoo: Zoo, rule: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        linear_targets(_load(zoo, "bert"), rule, leave_out=[])
    if rule == "layer":  # whether a near name is offered here is no promise
        assert "'layer' matches no linear layer of the model" in str(caught.value)
    else:
        assert str(caught.value) == message


def test_a_broken_regular_expression(zoo: Zoo) -> None:
    with pytest.raises(ModelError, match=r"'\(query' is no regular expression: missing \)"):
        linear_targets(_load(zoo, "bert"), "(query", leave_out=[])


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_every_bias_has_its_module(zoo: Zoo, kind: str) -> None:
    model = _load(zoo, kind)
    expected = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert {f"{name}.bias" for name in bias_modules(model, leave_out=[])} == expected
    assert "pooler.dense" not in bias_modules(model, leave_out=["pooler.dense"])


def test_patterns_are_read_as_pefts() -> None:
    names = ["layers.0.q_proj", "layers.0.mlp.up_proj", "layers.1.q_proj", "q_proj", "lq_proj"]
    patterns = {r"1\.q_proj": 1, "q_proj": 2, r".*\.0\..*": 3}
    found = by_pattern(names, patterns, 9, key="adapter.rank_pattern")
    assert found == {n: patterns.get(get_pattern_key(patterns, n), 9) for n in names}
    assert found == dict(zip(names, (2, 3, 1, 2, 9), strict=True))
    with pytest.raises(ModelError) as caught:
        by_pattern(names, {"proj": 4}, 9, key="adapter.rank_pattern")
    assert str(caught.value) == (
        "adapter.rank_pattern names proj, which none of the target modules is called; there are "
        "lq_proj, q_proj, up_proj"
    )


def test_llama_has_no_biases(zoo: Zoo) -> None:
    assert bias_modules(_load(zoo, "llama"), leave_out=[]) == []
