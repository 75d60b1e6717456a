"""Run directories as a run writes them, with results that are made up."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["EXPERIMENT", "HOSTILE", "clients", "rounds", "run_folder", "summary_of", "write_lines"]

EXPERIMENT = """\
model:
  name_or_path: builtin:minilm
  task: classification
data:
  path: data/
adapter:
  method: lora
  r: 8
  lora_alpha: 16.0
federation:
  num_rounds: 4
  clients_per_round: 2
  algorithm:
    name: fedprox
    mu: 0.1
seed: 3
"""
RECORD: dict[str, Any] = {
    "versions": {"atoll": "0.1.0", "torch": "2.13.0"},
    "command": ["atoll", "run", "my file.yaml"],
    "fingerprints": {"base": "ab12", "data": "cd34"},
    "data": {"num_clients": 3, "train": 30, "test": 12, "own_test": 9,
             "clients": {"only-in-the-table": {"train": 1}}},
}  # fmt: skip
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</text></svg><b>bold</b>",
    'style="font: 9px </text>',
    "$x_{1}$",
    r"$\nonsense{$",
    "{{ 7 * 7 }}{% raw %}",
    "back\x1b[31mred\x00\x85",
    "evil\u202egnp.exe\u2066",
    "lone \ud800 surrogate \ufffe",
    "javascript:alert(1)",
    "日本の病院 🏥",
    "a" * 300,
    "two\nlines\tand\r more",
)


def clients(names: Sequence[str], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """A row of summary.json's per_client for each name."""
    draw = random.Random(seed)
    found = {}
    for name in names:
        local, gain = draw.uniform(0.2, 0.8), draw.uniform(-0.2, 0.3)
        found[name] = {
            "train": draw.randint(3, 300), "test": draw.randint(1, 40),
            "federated": local + gain, "local": local, "pooled": local + 0.2,
            "gain": gain, "gain_interval": [gain - 0.1, gain + 0.1],
        }  # fmt: skip
    return found


def summary_of(per_client: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """summary.json of a finished run, with every key."""
    own = {"mean": 0.75, "worst": 0.5, "worst_decile": 0.55, "spread": 0.08}
    return {
        "task": "classification", "metric": "accuracy", "higher_is_better": True,
        "final": 0.8125, "baselines": {"local": 0.5, "pooled": 0.84375},
        "metrics": {"federated": {"accuracy": 0.8125, "macro_f1": 0.71875}},
        "own": {"federated": own, "local": own, "pooled": None},
        "intervals": {
            "level": 0.95, "federated": [0.7, 0.9], "federated_minus_local": [0.25, 0.375],
            "federated_minus_pooled": [-0.0625, 0.015625],
        },
        "per_client": dict(per_client), "best_round": 3,
        "num_rounds": 4, "exchanges": 2, "bytes_up": 4000, "bytes_down": 8000, "seconds": 95.0,
        "trainable_parameters": 294912, "skipped_clients": ["nobody"],
        "epsilon": None, "delta": None,
    }  # fmt: skip


def rounds(number: int = 4, *, failures: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Lines of rounds.jsonl; the given failures happen in round 2."""
    return [
        {
            "round": place, "loss": None if place == 0 else 1 / place, "accuracy": 0.5 + place / 16,
            "own": 0.4 + place / 16, "bytes_up": 1_000_000, "bytes_down": 2_000_000,
            "exchanges": int(place == 0), "clients": 2 * (place > 0),
            "failures": dict(failures or {}) if place == 2 else {}, "seconds": 1.5, "epsilon": None,
        }
        for place in range(number + 1)
    ]  # fmt: skip


def run_folder(
    folder: Path,
    names: Sequence[str] = ("ada", "bob", "cy"),
    *,
    finished: bool = True,
    failures: Mapping[str, str] | None = None,
) -> Path:
    """A whole run directory."""
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    (folder / "run.json").write_text(json.dumps(RECORD))
    write_lines(folder, rounds(failures=failures))
    if finished:
        (folder / "summary.json").write_text(json.dumps(summary_of(clients(names))))
    return folder


def write_lines(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "rounds.jsonl").write_text(text)
