"""Names and configuration of an adapter as PEFT writes them."""

from __future__ import annotations

from typing import Any

from atoll.experiment.setup import Setup
from atoll.tree import Tree

__all__ = ["adapter_config", "peft_names"]


def peft_names(tree: Tree) -> Tree:
    """Names as `PeftModel.save_pretrained` writes them."""
    return {f"base_model.model.{name}": value for name, value in tree.items()}


def adapter_config(setup: Setup) -> dict[str, Any]:
    """PEFT's own LoraConfig, written out; the head is saved where the Auto class has one."""
    from peft import LoraConfig

    settings, base = setup.experiment.adapter, setup.base
    saved = None
    if base.head and base.auto_class != "AutoModel":
        drawn = sorted({name.rpartition(".")[0] for name in base.fresh})
        saved = [base.head.split(".")[0], *drawn]
    task = {
        "AutoModelForCausalLM": "CAUSAL_LM",
        "AutoModelForSequenceClassification": "SEQ_CLS",
        "AutoModel": "FEATURE_EXTRACTION",
    }[base.auto_class]
    config = LoraConfig(
        base_model_name_or_path=base.source.hub_id,
        revision=base.source.revision,
        task_type=task,
        inference_mode=True,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        target_modules=list(setup.built.targets),
        modules_to_save=saved,
        fan_in_fan_out=setup.built.transposed,
    )
    found = config.to_dict()
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in found.items()
    }
