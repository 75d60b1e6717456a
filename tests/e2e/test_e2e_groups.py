"""Sums of groups over the network, between which a rule decides: as in a simulation."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.federation import LABELS, write_labelled
from tests.support.models import Zoo
from tests.support.sites import ATOLL, federation

pytestmark = pytest.mark.long
CLIENTS = ("ada", "bob", "cy", "dee", "eve", "fay")
EXPERIMENT = """
model: {{name_or_path: {model}, pooling: mean}}
data: {{path: data/, labels: [{labels}], max_length: 24}}
adapter: {{r: 2, target_modules: [query], head: train}}
train: {{max_steps: 2, learning_rate: 0.1, optimizer: sgd, group_size: 1}}
federation: {{num_rounds: 3, aggregator: {{name: grouped, size: 3, rule: median}}, min_clients: 3}}
privacy: {{secure_aggregation: true, min_survivors: 3, corrupt: 0, dropping: 0}}
evaluate: {{baselines: []}}
"""


def test_sites_find_their_groups_by_themselves(tmp_path: Path, zoo: Zoo) -> None:
    write_labelled(tmp_path, dict.fromkeys(CLIENTS, 30))
    text = EXPERIMENT.format(model=zoo("bert"), labels=", ".join(LABELS))
    (tmp_path / "private.yaml").write_text(text)
    with federation(tmp_path, CLIENTS) as people:
        (tmp_path / "policy.yaml").write_text(
            "label_names: true\nmin_rows: 1\nmodels: any\nmin_cohort: 3\n"
        )
        people.together("private.yaml", seconds=600)
    run, here = tmp_path / "runs" / "private", tmp_path / "runs" / "here"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["secure_sums"] == {"least": 3, "group": 3}
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert all(line["failures"] == {} for line in lines)
    words = [ATOLL, "run", "private.yaml", "output_dir=runs/here"]
    subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
    ours, theirs = (load_file(r / "adapter" / "adapter_model.safetensors") for r in (run, here))
    # Groups of the simulation are others, as its federation has another name: of two groups the
    # median is the mean, whoever is in which.
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4
