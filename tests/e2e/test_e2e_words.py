"""A language model, from the run to generated text."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest


@pytest.fixture(scope="module")
def run(folder: Any) -> dict[str, Any]:
    """The run, as its JSON document."""
    found: subprocess.CompletedProcess[str] = folder.run("run", "words.yaml", "--format", "json")
    assert found.returncode == 0, found.stderr
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def test_the_document_is_the_summary(folder: Any, run: dict[str, Any]) -> None:
    summary = folder.json("runs/words/summary.json")
    assert run == {"run": "runs/words", "already_finished": False, **summary}
    assert summary["metric"] == "perplexity"
    assert summary["baselines"]["pooled"] is None
    assert folder.names("runs/words/adapter") == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "atoll.json"
    }  # fmt: skip


def test_eval_gives_the_perplexity_of_the_run(folder: Any, run: dict[str, Any]) -> None:
    found = folder.run("eval", "runs/words", "--format", "json")
    assert json.loads(found.stdout)["final"] == pytest.approx(run["final"], rel=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_predict_is_what_the_peft_adapter_generates(folder: Any, run: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = folder.run(
        "predict", "runs/words", "--max-new-tokens", "6", input='{"prompt": "reef"}\n'
    )
    row = json.loads(found.stdout)
    facts = folder.json("runs/words/adapter/atoll.json")
    tokenizer = AutoTokenizer.from_pretrained(facts["base_model"])
    model = AutoModelForCausalLM.from_pretrained(facts["base_model"])
    model = PeftModel.from_pretrained(model, folder.path / "runs/words/adapter").eval()
    inputs = tokenizer("reef", return_tensors="pt")
    made = model.generate(**inputs, do_sample=False, max_new_tokens=6, pad_token_id=256)
    text = tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert row == {"prompt": "reef", "generated": text}
