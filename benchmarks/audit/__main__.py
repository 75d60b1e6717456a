"""What `atoll audit` finds of runs with and without protection, and how long it takes.

    python -m benchmarks.audit [--models tiny minilm] [--cases none secure client row full]

Each case is a run of its own, made and audited by the command line, a process each.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.common import SCRATCH, markdown, write_result

WORDS, CLIENTS, ROWS, LENGTH = 1999, 8, 12, 15
HIDDEN: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-5}
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "secure": {"privacy": {"secure_aggregation": True, "clip": 1.0}},
    "client": {"privacy": {**HIDDEN, "clip": 0.3}},
    "row": {"privacy": {**HIDDEN, "unit": "example", "clip": 0.5}},
    "full": {},
}


def main() -> None:
    options = _arguments()
    arms = {
        f"{model}, {case}": _measured(options.scratch / f"{model}-{case}", model, case)
        for model in options.models
        for case in options.cases
    }
    path = write_result(Path(__file__).parent, "audit", {"arms": arms})
    print(f"\n{table(arms)}\n\nwritten to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny", "minilm"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--scratch", type=Path, default=SCRATCH / "audit")
    return parser.parse_args()


def _measured(folder: Path, model: str, case: str) -> dict[str, Any]:
    """Run, audit, and what was found; seconds are of the audit's process from start to end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment(folder, model, case)))
    _atoll("run", str(file))
    before, begun = _children(), time.monotonic()
    _atoll("audit", str(folder / "run"))
    seconds, cpu = time.monotonic() - begun, _children() - before
    found: dict[str, Any] = json.loads((folder / "run" / "audit.json").read_text())
    return {"wall": seconds, "cpu": cpu, "found": found}


def _atoll(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "atoll", *words], check=True, stdout=sys.stderr)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def experiment(folder: Path, model: str, case: str) -> dict[str, Any]:
    """An experiment file: LoRA of rank 8, or the whole model."""
    lora = {"method": "lora", "r": 8, "lora_alpha": 16}
    if model == "tiny":
        llama(folder / "model")
        texts(folder / "data")
        base = {
            "model": {"name_or_path": str(folder / "model"), "task": "causal-lm"},
            "data": {"path": str(folder / "data"), "max_length": 32},
            "adapter": {**lora, "target_modules": ["q_proj", "v_proj"]},
            "federation": {"num_rounds": 3},
            "train": {"learning_rate": 3e-3, "num_train_epochs": 2},
        }
    else:
        base = {
            "model": {"name_or_path": "builtin:minilm", "task": "classification"},
            "data": {"path": "builtin:docstrings", "max_length": 32,
                     "partition": {"name": "dirichlet", "alpha": 0.1, "num_clients": 20}},
            "adapter": {**lora, "target_modules": ["query", "value"], "head": "train"},
            "federation": {"num_rounds": 2, "clients_per_round": 6},
            "train": {"learning_rate": 3e-3},
        }  # fmt: skip
    if case == "full":
        head = {} if model == "tiny" else {"head": "train"}
        base["adapter"] = {"method": "full", **head}
        base["train"] = {**base["train"], "learning_rate": 1e-3 if model == "tiny" else 5e-5}
    shared = {"evaluate": {"baselines": [], "every": 10}, "output_dir": str(folder / "run")}
    return {**base, **shared, **CASES[case]}


def llama(folder: Path) -> None:
    """Two layers of 128 features over two thousand words, with random weights."""
    vocabulary = {**{f"w{number}": number for number in range(WORDS)}, "</s>": WORDS}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", model_max_length=64
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=WORDS + 1, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
        bos_token_id=WORDS, eos_token_id=WORDS,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)


def texts(folder: Path) -> None:
    """Rows of random words, as many for training as held out."""
    draw = random.Random(0)
    for client in range(CLIENTS):
        place = folder / f"client-{client}"
        place.mkdir(parents=True)
        for split in ("train", "test"):
            rows = [" ".join(f"w{word}" for word in draw.sample(range(WORDS), LENGTH))
                    for _ in range(ROWS)]  # fmt: skip
            lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
            (place / f"{split}.jsonl").write_text(lines)


def table(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a run."""
    head = ["run", "one row's words", "in order", "one update's words", "(guessing)",
            "under ε", "(guessing)", "exposure, bits", "under ε", "loss AUC",
            "ε refuted, suggested", "wall s", "CPU s"]  # fmt: skip
    return markdown(head, [[name, *_cells(arm)] for name, arm in arms.items()])


def _cells(arm: Mapping[str, Any]) -> list[str]:
    found = arm["found"]
    seen = {view["name"]: view["seen"] for view in found["server"]}
    noisy = seen.get("noisy", {})
    secrets, mechanism = found["secrets"], found["mechanism"]
    return [
        _text(seen["step"]["tokens"]), _text(seen["step"]["order"]),
        _text(seen["client"]["tokens"]), _text(seen["client"]["token_chance"]),
        _text(noisy.get("tokens")), _text(noisy.get("token_chance")),
        f"{secrets['plain'][-1]['bits']:.1f}", f"{secrets['private'][-1]['bits']:.1f}",
        _text(found["membership"]["auc"]["value"]),
        f"{mechanism['bound']:.2f}, {mechanism['estimate']:.2f}",
        f"{arm['wall']:.0f}", f"{arm['cpu']:.0f}",
    ]  # fmt: skip


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
