"""Generated text answers what a run was trained to answer: the prompt is training's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.trained.load_run import load_run
from atoll.trained.predict import generate
from tests.support.models import Zoo
from tests.support.scenes import scene, write_clients

# transformers 5.24 renames the argument for some models, and takes the old name for all of them.
pytestmark = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")

USER, ANSWER = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "qqq"}
ALPACA = "### Instruction:\nask\n\n### Response:\n"
CHAT = "<|user|>ask<|assistant|>"
# The rows of training; then rows that ask the same, each as a run of these rows reads it.
KINDS: dict[str, tuple[dict[str, Any], Sequence[dict[str, Any]], str]] = {
    "messages": ({"messages": [USER, ANSWER]},
                 [{"text": "ask"}, {"messages": [USER]}, {"messages": [USER, ANSWER]}], CHAT),
    "instruction": ({"instruction": "ask", "output": "qqq"},
                    [{"text": "ask"}, {"instruction": "ask"},
                     {"instruction": "ask", "input": "", "output": "x"}], ALPACA),
    "prompt": ({"prompt": "ask", "completion": "qqq"},
               [{"text": "ask"}, {"prompt": "ask"}, {"prompt": "ask", "text": "b"}], "ask"),
    "dialogue": ({"prompt": [USER], "completion": [ANSWER]},
                 [{"text": "ask"}, {"prompt": [USER]}, {"messages": [USER]}], CHAT),
    "text": ({"text": "askqqq"}, [{"text": "ask"}, {"text": "ask", "prompt": "b"}], "ask"),
    "text and label": ({"text": "askqqq", "label": "a"},
                       [{"text": "ask"}, {"text": "ask", "label": "new"}], "ask"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_asked_as_it_was_taught(kind: str, tmp_path: Path, zoo: Zoo) -> None:
    trained, asked, prompt = KINDS[kind]
    write_clients(tmp_path / "data", {"ada": [trained] * 8}, test=1)
    setup = scene(tmp_path, zoo, "llama", data={"max_length": 60},
                  federation={"num_rounds": 1}, evaluate={"baselines": []})  # fmt: skip
    run_experiment(setup, tmp_path / "run", Observer())
    facts = json.loads((tmp_path / "run/adapter/atoll.json").read_text())
    assert facts["labels"] is None
    assert facts["chat"] == (prompt == CHAT)
    run = load_run(tmp_path / "run", note=lambda text: None)
    found = list(generate(run, asked, max_new_tokens=4))
    # The same model, asked with the prompt written out here.
    run_of_text = type(run)(run.path, run.setup, run.values, "text")
    (expected,) = generate(run_of_text, [{"text": prompt}], max_new_tokens=4)
    assert found == [expected] * len(asked)
    assert run.rows(tmp_path / "data/ada/test.jsonl")
