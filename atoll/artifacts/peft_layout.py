"""Names and configuration of an adapter as PEFT writes them."""

from __future__ import annotations

from typing import Any

from atoll.adapters.plan import INSIDE
from atoll.experiment.setup import Setup
from atoll.tree import Tree

__all__ = ["adapter_config", "peft_tree"]


def peft_tree(setup: Setup, values: Tree) -> Tree:
    """Values under the names, and beside the tensors, that PEFT's file holds."""
    assert setup.built.peft is not None, "PEFT has no such adapter"
    keys, prefix = setup.built.peft.keys, setup.base.prefix
    elsewhere = set(keys.values())
    named = {
        INSIDE + name.removeprefix(prefix): value
        for name, value in values.items()
        if name not in elsewhere
    }
    placed = {key: values[name] for key, name in keys.items()} | setup.built.peft.fixed
    # One tensor may stand at several keys, which a file cannot share.
    return named | {key: value.clone() for key, value in placed.items()}


def adapter_config(setup: Setup) -> dict[str, Any]:
    """PEFT's own configuration, written out; the head is saved where the Auto class has one."""
    base = setup.base
    assert setup.built.peft is not None, "PEFT has no such adapter"
    config = setup.built.peft.config()
    config.base_model_name_or_path = base.source.hub_id
    config.revision = base.source.revision
    config.inference_mode = True
    config.task_type = {
        "AutoModelForCausalLM": "CAUSAL_LM",
        "AutoModelForSequenceClassification": "SEQ_CLS",
        "AutoModelForTokenClassification": "TOKEN_CLS",
        "AutoModel": "FEATURE_EXTRACTION",
    }.get(base.auto_class)  # PEFT has no name for the others
    if base.head and base.auto_class != "AutoModel":
        drawn = sorted({name.rpartition(".")[0] for name in base.fresh})
        config.modules_to_save = [base.head.split(".")[0], *drawn]
    found = config.to_dict()
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in found.items()
    }
