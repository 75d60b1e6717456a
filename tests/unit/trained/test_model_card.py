"""The card says what was trained, on how much of whose data, and never what the data say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from atoll.models.locate import Source
from atoll.trained.export_run import Terms, export_run
from atoll.trained.model_card import Told, card, licence_of
from tests.support.finished import TEXTS, encoded, finish
from tests.support.models import Zoo
from tests.support.scenes import write_clients

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ARM = {"mean": 0.5, "worst": 0.25, "spread": 0.125}
EXPERIMENT: dict[str, Any] = {
    "adapter": {"method": "lora", "r": 4, "lora_alpha": 8.0, "use_rslora": False},
    "federation": {"algorithm": {"name": "fedprox", "mu": 0.1}},
}
DATA: dict[str, Any] = {
    "kind": "text/label", "num_clients": 2, "train": 1005, "own_test": 7, "test": 50, "labels": 3,
    "skipped": ["empty"],
    "clients": {"ada": {"train": 1000, "test": 7}, "b|b\n# x": {"train": 5, "test": 0}},
}  # fmt: skip
SUMMARY: dict[str, Any] = {
    "task": "classification", "metric": "accuracy", "final": 0.75,
    "baselines": {"local": 0.25, "pooled": None}, "own": {"federated": ARM, "local": None},
    "num_rounds": 3, "exchanges": 1, "bytes_up": 1_000_000, "bytes_down": 20, "seconds": 61.4,
    "trainable_parameters": 1234, "epsilon": None, "delta": None,
}  # fmt: skip


def told(folder: Path, **changes: Any) -> Told:
    facts = {
        "experiment": EXPERIMENT,
        "record": {"data": DATA, "versions": {"atoll": "0.2"}},
        "summary": SUMMARY,
        "source": Source(str(folder), "some/model", "v1"),
        "library": "peft",
        "merged": False,
        "lines": "import torch",
        "checked": "Compared.",
    }
    return Told(**{**facts, **changes})


def test_what_was_trained_and_how_well(tmp_path: Path) -> None:
    text = card(told(tmp_path))
    for line in (
        "# Adapter for some/model",
        "Trained with Atoll across 2 clients whose 1005 training rows stayed where they were.",
        "| base model | some/model, revision v1 |",
        "| licence of the base model | not stated beside it |",
        "| method | lora (r: 4, lora_alpha: 8.0, use_rslora: False) |",
        "| trained values | 1,234 |",
        "| algorithm | fedprox (mu: 0.1) |",
        "| rounds | 3 |",
        "| bytes up, down | 1,000,000, 20 |",
        "| accuracy | common test set | own rows: mean | worst client | spread over clients |",
        "| federated | 0.7500 | 0.5000 | 0.2500 | 0.1250 |",
        "| local only | 0.2500 | not measured | not measured | not measured |",
        "| pooled | not measured | not measured | not measured | not measured |",
        "Rows of text and label: 1005 training rows and 7 held-out rows at 2 clients, 50 rows in a "
        "common test set. Labels: 3. 1 client without rows took no part.",
        "| ada | 1000 | 7 |",
        "| b\\|b # x | 5 | 0 |",
        "Compared.",
    ):
        assert f"\n{line}\n" in text
    assert "\n```python\nimport torch\n```\n" in text
    front = yaml.safe_load(text.split("---")[1])
    assert front == {
        "base_model": "some/model", "base_model_relation": "adapter", "library_name": "peft",
        "pipeline_tag": "text-classification", "tags": ["federated", "atoll"],
    }  # fmt: skip


def test_privacy_and_a_merged_model(tmp_path: Path) -> None:
    assert "No differential privacy: rows stayed" in card(told(tmp_path))
    private = {**SUMMARY, "epsilon": 4.0, "delta": 1e-5}
    text = card(told(tmp_path, summary=private, merged=True, library="transformers"))
    assert "Differential privacy: ε = 4 at δ = 1e-05." in text
    assert "No differential privacy" not in text
    assert "# some/model, fine-tuned" in text
    assert yaml.safe_load(text.split("---")[1])["base_model_relation"] == "finetune"


@pytest.mark.parametrize(
    ("privacy", "counted"),
    [
        ({"unit": "client", "epsilon": 4.0, "noise_multiplier": None}, False),
        ({"unit": "client", "epsilon": None, "noise_multiplier": 0.5}, False),
        ({"unit": "example", "epsilon": 4.0, "secure_aggregation": "ckks"}, False),
        ({"unit": "example", "epsilon": 4.0, "secure_aggregation": False}, True),
        ({"unit": "client", "epsilon": None, "secure_aggregation": False}, True),
    ],
)
def test_rows_of_hidden_clients_are_not_counted(
    privacy: dict[str, Any], *, counted: bool, tmp_path: Path
) -> None:
    experiment, summary = (
        {**EXPERIMENT, "privacy": privacy},
        {**SUMMARY, "epsilon": 4.0, "delta": 1e-5},
    )
    text = card(told(tmp_path, experiment=experiment, summary=summary))
    assert ("| ada | 1000 | 7 |" in text) is ("| client |" in text) is counted
    assert "the scores above are of held-out rows, without noise." in text
    unmeasured = card(told(tmp_path, experiment=experiment, summary={**summary, "final": None}))
    assert "the scores above" not in unmeasured


def test_rows_that_clients_did_not_tell_of_are_no_zeros(tmp_path: Path) -> None:
    data = {**DATA, "clients": dict.fromkeys(DATA["clients"]), "train": None, "own_test": None,
            "test": None}  # fmt: skip
    experiment = {**EXPERIMENT, "privacy": {"unit": "client", "epsilon": 4.0}}
    record = {"data": data, "versions": {}}
    text = card(told(tmp_path, experiment=experiment, record=record))
    assert "across 2 clients whose training rows stayed where they were." in text
    assert "Rows of text and label: as many as each keeps to itself at 2 clients." in text


def test_many_clients_are_counted(tmp_path: Path) -> None:
    clients = {f"client{i}": {"train": i, "test": 0} for i in range(100)}
    record = {"data": {**DATA, "clients": clients}, "versions": {}}
    text = card(told(tmp_path, record=record))
    assert len(re.findall(r"^\| client\d+ \|", text, re.MULTILINE)) == 40
    assert "… and 60 more clients." in text


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# A\n", "apache-2.0"),
        ("---\ntags: [x]\n---\n", None),
        ("license: mit\n", None),
        ("---\n{broken: [\n---\n", None),
        ("---\nlicense: [mit, bsd]\n---\n", None),
        ("---\n- a\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_is_what_the_base_states(
    readme: str | None, licence: str | None, tmp_path: Path
) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert licence_of(Source(str(tmp_path), "m")) == licence
    front = yaml.safe_load(card(told(tmp_path, source=Source(str(tmp_path), "m"))).split("---")[1])
    assert front.get("license") == licence


def test_no_row_and_no_label_of_a_client(zoo: Zoo, tmp_path: Path) -> None:
    """And the folder is a sentence encoder, whose vectors are those under the head."""
    rows = {
        client: [{"text": f"{secret} reef", "label": f"label of {client}"},
                 {"text": "tide", "label": "common"}] * 3
        for client, secret in (("ada", "treasure"), ("bob", "wreck"))
    }  # fmt: skip
    write_clients(tmp_path / "data", rows)
    run = finish(tmp_path, zoo, "bert", model={"pooling": "mean", "normalize": True})
    for terms in (Terms(), Terms(merge=True)):
        export_run(run, tmp_path / str(terms.merge), terms, note=lambda text: None)
        text = (tmp_path / str(terms.merge) / "README.md").read_text()
        assert not re.search("treasure|wreck|reef|label of|common\n", text)
        assert "| ada | 6 | 2 |" in text
        summary = json.loads((run / "summary.json").read_text())
        assert f"| federated | {summary['final']:.4f} |" in text
    _check_vectors(tmp_path / "True")


def _check_vectors(folder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    vectors = torch.tensor(sentence_transformers.SentenceTransformer(str(folder)).encode(TEXTS))
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = encoded(tokenizer)
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (hidden * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(vectors, means / means.norm(dim=1, keepdim=True))
    assert load_file(folder / "head.safetensors")["classifier.weight"].shape[1] == vectors.shape[1]
