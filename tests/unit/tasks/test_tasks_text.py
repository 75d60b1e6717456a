"""Masked words, tags, numbers and several labels: trained in stacks, exported, read, refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from atoll.adapters.site import Frame
from atoll.artifacts.export import export_adapter
from atoll.config import load
from atoll.core import State
from atoll.errors import AtollError
from atoll.experiment.setup import Setup, prepare
from atoll.local.bench import model_values
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.tasks import task_of
from atoll.trained.load_run import load_run, read_adapter
from atoll.trained.readings import readings
from tests.support.federation import distance, moved, stir
from tests.support.models import Zoo
from tests.support.scenes import SUMMARY, largest, stirred, write_clients
from tests.support.task_sites import site_of
from tests.support.text_tasks import number_rows, plain_rows, roberta, tagged_rows, topic_rows

ROWS: dict[str, Any] = {
    "masked-lm": plain_rows,
    "token-classification": tagged_rows,
    "regression": number_rows,
    "multi-label-classification": topic_rows,
}
# Of several lengths, one longer than max_length; all over one batch, so that padding is met.
TEXTS = ["reef tide coral", "boat", "sun moon star wind rain rope " * 6, "unknown words here"]

# PEFT 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="session")
def models(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of models, with a RoBERTa whose tokenizer is its own."""
    kinds = ("bert", "bert-with-pooler", "gpt2", "llama", "roberta")
    return {kind: zoo(kind) for kind in kinds} | {
        "own-roberta": roberta(tmp_path_factory.mktemp("roberta"))
    }


def task_scene(
    folder: Path, path: str, task: str, rows: Any = None, **sections: Mapping[str, Any]
) -> tuple[Setup, list[str]]:
    """An experiment of a task, ready to run, and the notes that it gave."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        write_clients(folder / "data", ROWS[task]() if rows is None else rows)
    written: dict[str, Any] = {
        "model": {"name_or_path": path, "task": task},
        "data": {"path": str(folder / "data"), "max_length": 24},
        "train": {"per_device_train_batch_size": 4, "group_size": 2, "device": "cpu"},
        "evaluate": {"baselines": []},
        "output_dir": str(folder / "run"),
    }
    for name, values in sections.items():
        written[name] = {**written.get(name, {}), **values}
    (folder / "experiment.yaml").write_text(json.dumps(written))
    notes: list[str] = []
    return prepare(load(folder / "experiment.yaml"), note=notes.append), notes


def refused(folder: Path, path: str, task: str, rows: Any = None, **sections: Any) -> str:
    with pytest.raises(AtollError) as caught:
        task_scene(folder, path, task, rows, **sections)
    return str(caught.value)


STACKS = [
    ("masked-lm", "lora"), ("masked-lm", "bitfit"), ("token-classification", "lora"),
    ("token-classification", "none"), ("regression", "lora"), ("regression", "none"),
    ("multi-label-classification", "lora"), ("multi-label-classification", "bitfit"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "method"), STACKS)
def test_a_stack_of_clients_trains_as_each_alone(
    task: str, method: str, models: dict[str, str], tmp_path: Path
) -> None:
    adapter = {"method": method} | ({"r": 4, "lora_dropout": 0.1} if method == "lora" else {})
    train = {"optimizer": "sgd", "learning_rate": 0.05, "per_device_train_batch_size": 2}
    setup, _ = task_scene(tmp_path, models["bert"], task, model={"dtype": "float64"})
    # A model of its own: that of the setup has an adapter already.
    base = task_of(setup.experiment).base(setup.experiment, setup.data)
    there = site_of(base, setup.bench.objective, ROWS[task](), adapter=adapter, train=train)
    own = {client: stir(there.values, seed) for seed, client in enumerate(there.clients)}
    stacked, failed = there.train(group_size=len(there.clients), own=own)
    alone, failed_alone = there.train(group_size=1, own=own)
    assert not failed
    assert not failed_alone
    assert len({one.steps for one in alone.values()}) > 2, "the clients are not uneven"
    for client, one in alone.items():
        assert distance(stacked[client].end, one.end) < 1e-10, client
        assert stacked[client].loss == pytest.approx(one.loss, rel=1e-9)
        assert max(float(value.abs().max()) for value in moved(one).values()) > 0


def outputs_of(setup: Setup, state: State, inputs: Mapping[str, Tensor]) -> Tensor:
    """Atoll's outputs of a batch."""
    values = {name: value.unsqueeze(0) for name, value in model_values(state).items()}
    with torch.no_grad():
        return setup.bench.model.forward(values, dict(inputs), Frame(1))


def batch_of(setup: Setup) -> Any:
    """The texts, as anyone would encode them."""
    return setup.base.tokenizer(
        TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt"
    )


def real(inputs: Mapping[str, Tensor], outputs: Tensor) -> Tensor:
    """Outputs without those of padding."""
    if outputs.dim() == 2:
        return outputs
    return outputs[inputs["attention_mask"].bool()]


OWN_HEAD = {"model": {"pooling": "model"}, "adapter": {"head": "train"}}
PEFT: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "masked-bert": ("masked-lm", "bert", "AutoModelForMaskedLM", {}),
    "masked-roberta": ("masked-lm", "own-roberta", "AutoModelForMaskedLM", {}),
    "tokens-bert": ("token-classification", "bert", "AutoModelForTokenClassification", {}),
    "tokens-roberta": ("token-classification", "roberta", "AutoModelForTokenClassification", {}),
    "tokens-gpt2": ("token-classification", "gpt2", "AutoModelForTokenClassification", {}),
    "tokens-llama": ("token-classification", "llama", "AutoModelForTokenClassification", {}),
    "regression": (
        "regression", "bert-with-pooler", "AutoModelForSequenceClassification", OWN_HEAD,
    ),
    "regression-llama": ("regression", "llama", "AutoModelForSequenceClassification", OWN_HEAD),
    "multi-label": (
        "multi-label-classification", "bert", "AutoModelForSequenceClassification", OWN_HEAD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PEFT)
def test_peft_loads_what_was_trained(name: str, tmp_path: Path, models: dict[str, str]) -> None:
    task, kind, auto, sections = PEFT[name]
    setup, _ = task_scene(tmp_path, models[kind], task, **sections)
    assert setup.base.auto_class == auto
    state = stirred(setup)
    export_adapter(setup, state, tmp_path / "adapter", SUMMARY)
    head = setup.base.head
    options = {"num_labels": len(setup.base.model.get_parameter(f"{head}.weight"))} if head else {}
    plain = getattr(transformers, auto).from_pretrained(models[kind], **options)
    if plain.config.pad_token_id is None:
        plain.config.pad_token_id = setup.base.tokenizer.pad_token_id
    model = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    inputs = batch_of(setup)
    ours = outputs_of(setup, state, inputs)
    with torch.no_grad():
        theirs = model(**inputs).logits
        assert largest(real(inputs, ours), real(inputs, theirs)) < 1e-5 * max(
            1.0, float(ours.abs().max())
        )
        # Every adapter value is used: the model without it says something else.
        with model.disable_adapter():
            assert largest(model(**inputs).logits, theirs) > 0.01
    model.save_pretrained(str(tmp_path / "again"))
    first, again = (
        load_file(tmp_path / place / "adapter_model.safetensors") for place in ("adapter", "again")
    )
    torch.testing.assert_close(again, first, rtol=0, atol=0)


CARDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "masked": ("masked-lm", "bert", {}),
    "masked-roberta": ("masked-lm", "own-roberta", {}),
    "masked-bitfit": ("masked-lm", "bert", {"adapter": {"method": "bitfit"}}),
    "masked-bitfit-roberta": ("masked-lm", "roberta", {"adapter": {"method": "bitfit"}}),
    "masked-full": ("masked-lm", "bert", {"adapter": {"method": "full"}}),
    "masked-full-new-head": (
        "masked-lm", "bert-with-pooler", {"adapter": {"method": "full"}},
    ),
    "tokens": ("token-classification", "bert", {}),
    "tokens-roberta": ("token-classification", "own-roberta", {}),
    "tokens-gpt2": ("token-classification", "gpt2", {}),
    "tokens-head-alone": ("token-classification", "bert", {"adapter": {"method": "none"}}),
    "tokens-full": ("token-classification", "bert", {"adapter": {"method": "full"}}),
    "regression": ("regression", "bert", {}),
    "regression-train": ("regression", "bert", {"adapter": {"head": "train"},
                                                "model": {"pooling": "mean"}}),
    "regression-own-head": ("regression", "bert-with-pooler", OWN_HEAD),
    "regression-random-features": ("regression", "bert", {"adapter": {"head_features": 24}}),
    "multi-label": ("multi-label-classification", "bert", {}),
    "multi-label-own-head": ("multi-label-classification", "bert", OWN_HEAD),
}  # fmt: skip

DRIVER = """
import os, runpy, sys, warnings
from safetensors.torch import save_file
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
for folder in sys.argv[1:]:
    os.chdir(folder)
    found = runpy.run_path("card.py")
    kept = {"logits": found["logits"].contiguous(), "ids": found["batch"]["input_ids"]}
    if "numbers" in found:
        kept["numbers"] = found["numbers"].contiguous()
    save_file(kept, "outputs.safetensors")
"""


def card_lines(folder: Path) -> str:
    """The Python block of the model card, on our texts."""
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    lines = block.replace('texts = ["a row of text"]\n', f"texts = {TEXTS!r}\n")
    words = [text.split() for text in TEXTS]
    lines = lines.replace('rows = [["a", "row", "of", "words"]]\n', f"rows = {words!r}\n")
    assert lines != block
    return lines


def test_the_model_cards_lines_give_the_outputs(tmp_path: Path, models: dict[str, str]) -> None:
    """Plain transformers and peft, in another process that never imports Atoll."""
    ours: dict[str, tuple[Setup, State]] = {}
    for name, (task, kind, sections) in CARDS.items():
        setup, _ = task_scene(tmp_path / name, models[kind], task, **sections)
        state = stirred(setup)
        folder = tmp_path / name / "adapter"
        export_adapter(setup, state, folder, SUMMARY)
        torch.testing.assert_close(read_adapter(setup, folder), model_values(state), rtol=0, atol=0)
        lines = card_lines(folder)
        assert "import atoll" not in lines
        (folder / "card.py").write_text(lines)
        ours[name] = setup, state
    (tmp_path / "driver.py").write_text(DRIVER)
    folders = [str(tmp_path / name / "adapter") for name in CARDS]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), *folders], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, (setup, state) in ours.items():
        found = load_file(tmp_path / name / "adapter" / "outputs.safetensors")
        # Words are given as the text that they make, so that both have the same tokens.
        inputs = batch_of(setup)
        assert torch.equal(found["ids"], inputs["input_ids"]), name
        expected = outputs_of(setup, state, inputs)
        gap = largest(real(inputs, expected), real(inputs, found["logits"]))
        assert gap < 1e-5 * max(1.0, float(expected.abs().max())), name
        if "numbers" in found:
            moments = setup.data.moments
            assert moments is not None
            said = moments.mean + moments.deviation * expected[:, 0]
            assert largest(said, found["numbers"]) < 1e-5 * float(said.abs().max())
        assert ("numbers" in found) == name.startswith("regression")


@pytest.mark.parametrize("kind", ["bert", "own-roberta"])
def test_the_tied_decoder_is_no_target(kind: str, tmp_path: Path, models: dict[str, str]) -> None:
    setup, _ = task_scene(tmp_path, models[kind], "masked-lm")
    decoder = setup.base.backbone.get_output_embeddings()  # type: ignore[operator]
    (name,) = [name for name, x in setup.base.backbone.named_modules() if x is decoder]
    assert decoder.weight is setup.base.backbone.get_input_embeddings().weight  # type: ignore[operator]
    assert name not in setup.built.targets
    assert name.rpartition(".")[0].split(".")[0] in {x.split(".")[0] for x in setup.built.targets}


def finished(folder: Path, path: str, task: str, rows: Any = None, **sections: Any) -> Any:
    """A finished run, loaded again without its data."""
    federation = {"federation": {"num_rounds": 1}, **sections}
    setup, _ = task_scene(folder, path, task, rows, **federation)
    run_experiment(setup, folder / "run", Observer())
    (folder / "data").rename(folder / "gone")
    return load_run(folder / "run", note=lambda text: None)


def test_masks_are_filled_in(tmp_path: Path, models: dict[str, str]) -> None:
    for kind in ("bert", "own-roberta"):
        run = finished(tmp_path / kind, models[kind], "masked-lm")
        tokenizer = run.setup.base.tokenizer
        mask = tokenizer.mask_token
        text = f"reef {mask} tide {mask}"
        (found,) = readings(run, [{"text": text, "other": 1}], top=2)
        inputs = tokenizer(text, return_tensors="pt")
        logits = outputs_of(run.setup, {"adapter": run.values}, inputs)[0]
        places = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
        shares, tokens = logits[places].softmax(-1).topk(2)
        assert len(found["masks"]) == 2
        for said, share, token in zip(found["masks"], shares, tokens, strict=True):
            assert [one["token"] for one in said] == [
                tokenizer.decode([i]).strip() for i in token.tolist()
            ]
            assert [one["probability"] for one in said] == pytest.approx(share.tolist(), rel=1e-4)
        words = [one[0]["token"] for one in found["masks"]]
        assert found["prediction"] == f"reef {words[0]} tide {words[1]}"
        with pytest.raises(AtollError) as caught:
            readings(run, [{"text": "reef tide"}], top=1)
        assert str(caught.value) == (
            f"a text has no {mask} within data.max_length; write {mask} where a word is to be "
            "filled in"
        )


def test_words_are_tagged(tmp_path: Path, models: dict[str, str]) -> None:
    settings = {"train": {"head_learning_rate": 0.2, "num_train_epochs": 6}}
    run = finished(tmp_path, models["bert"], "token-classification", **settings)
    labels = run.setup.data.labels
    long = ["reef"] * 30
    rows = [{"tokens": ["boat", "reef", "tide"], "tags": ["new"]}, {"text": "sun  boat"},
            {"tokens": long}]  # fmt: skip
    first, second, third = readings(run, rows, top=3)
    inputs = run.setup.base.tokenizer("boat reef tide", return_tensors="pt")
    shares = outputs_of(run.setup, {"adapter": run.values}, inputs)[0, 1:-1].softmax(-1)
    assert first["prediction"] == [labels[int(i)] for i in shares.argmax(-1)]
    assert first["probabilities"] == pytest.approx(shares.max(-1).values.tolist(), rel=1e-4)
    assert set(first["prediction"]) != {"O"}, "nothing was learned"
    for entity in first["entities"]:
        assert set(entity) == {"type", "text", "start", "end"}
        assert first["tokens"][entity["start"] : entity["end"]] == entity["text"].split()
        assert first["prediction"][entity["start"]][2:] == entity["type"]
    assert second["tokens"] == ["sun", "boat"]
    assert len(second["prediction"]) == 2
    assert third["prediction"][22:] == third["probabilities"][22:] == [None] * 8
    assert None not in third["prediction"][:22]
    # A word of which no token is left shifts no tag.
    (spaced,) = readings(run, [{"tokens": ["", "boat", " ", "reef", "tide"]}], top=1)
    assert spaced["prediction"] == [None, first["prediction"][0], None, *first["prediction"][1:]]
    with pytest.raises(AtollError, match="row 2 holds nothing to predict for"):
        readings(run, [{"text": "reef"}, {"text": " "}], top=1)


def test_numbers_are_predicted_in_their_own_unit(tmp_path: Path, models: dict[str, str]) -> None:
    run = finished(tmp_path, models["bert"], "regression")
    texts = [{"text": text} for text in TEXTS[:2]]
    found = [one["prediction"] for one in readings(run, texts, top=1)]
    facts = json.loads((tmp_path / "run/adapter/atoll.json").read_text())
    labels = [row["label"] for own in number_rows().values() for row in own]
    assert facts["mean"] == pytest.approx(sum(labels) / len(labels))
    inputs = run.setup.base.tokenizer([x["text"] for x in texts], padding=True, return_tensors="pt")
    plain = outputs_of(run.setup, {"adapter": run.values}, inputs)[:, 0]
    said = (facts["mean"] + facts["deviation"] * plain).tolist()
    assert found == pytest.approx(said, rel=1e-5)
    # And rows of a file are measured in that unit too.
    (tmp_path / "new.jsonl").write_text('{"text": "reef", "label": 7}\n')
    assert run.rows(tmp_path / "new.jsonl") == [{"text": "reef", "label": 7.0}]
    (tmp_path / "new.jsonl").write_text('{"text": "reef", "label": "seven"}\n')
    with pytest.raises(AtollError, match="`seven` among labels that are numbers in training"):
        run.rows(tmp_path / "new.jsonl")


def test_the_unit_of_numbers_changes_nothing(tmp_path: Path, models: dict[str, str]) -> None:
    finals: dict[str, dict[str, float]] = {}
    for name, (scale, shift) in {"plain": (1.0, 0.0), "large": (1e6, 3e8)}.items():
        rows = {
            client: [{**row, "label": scale * row["label"] + shift} for row in own]
            for client, own in number_rows().items()
        }
        setup, _ = task_scene(
            tmp_path / name, models["bert"], "regression", rows, federation={"num_rounds": 2}
        )
        summary = run_experiment(setup, tmp_path / name / "run", Observer())
        finals[name] = summary["metrics"]["federated"]
    assert finals["large"]["rmse"] == pytest.approx(1e6 * finals["plain"]["rmse"], rel=1e-3)
    assert finals["large"]["r2"] == pytest.approx(finals["plain"]["r2"], rel=1e-3, abs=1e-4)


def test_labels_above_a_half_are_predicted(tmp_path: Path, models: dict[str, str]) -> None:
    run = finished(tmp_path, models["bert"], "multi-label-classification")
    texts = [{"text": text, "label": "unknown"} for text in TEXTS[:3]]
    inputs = batch_of(run.setup)
    shares = outputs_of(run.setup, {"adapter": run.values}, inputs).sigmoid().tolist()
    labels = run.setup.data.labels
    for said, row in zip(readings(run, texts, top=2), shares, strict=False):
        assert said["prediction"] == [x for x, p in zip(labels, row, strict=True) if p > 0.5]
        ranked = sorted(zip(labels, row, strict=True), key=lambda item: -item[1])[:2]
        assert list(said["probabilities"]) == [name for name, _ in ranked]
        assert list(said["probabilities"].values()) == pytest.approx(
            [p for _, p in ranked], rel=1e-4
        )


@pytest.mark.parametrize("task", [*ROWS, "causal-lm"])
def test_rows_that_are_cut_are_counted(task: str, tmp_path: Path, models: dict[str, str]) -> None:
    words = {"ada": 2, "bob": 5, "cy": 9, "dee": 12}
    rows = {
        client: [_row(task, ["reef"] * count), _row(task, ["reef"])]
        for client, count in words.items()
    }
    kind, length = ("llama", 20) if task == "causal-lm" else ("bert", 7)
    _, notes = task_scene(tmp_path, models[kind], task, rows, data={"max_length": length})
    # Test rows are the two rows once more.
    told = next(text for text in notes if text.startswith(f"data.max_length is {length}: "))
    longest = "60 tokens" if task == "causal-lm" else "14 tokens"
    lost = "; 22 words of them without a tag to learn" if task == "token-classification" else ""
    cut = (
        "6 of 16 rows (37.5%), of 3 of 4"
        if task == "causal-lm"
        else "4 of 16 rows (25.0%), of 2 of 4"
    )
    assert told == (
        f"data.max_length is {length}: {cut} clients, are longer and cut{lost}; the longest has "
        f"{longest}"
    )


def _row(task: str, words: list[str]) -> dict[str, Any]:
    tagged = {"tokens": words, "tags": ["B-SEA", *["O"] * (len(words) - 1)]}
    label = {"regression": float(len(words)), "multi-label-classification": ["sea"]}.get(task)
    if task == "token-classification":
        return tagged
    return {"text": " ".join(words)} | ({} if label is None else {"label": label})


@pytest.mark.parametrize("task", [*ROWS, "causal-lm"])
def test_longer_rows_are_refused_by_client_and_number(
    task: str, tmp_path: Path, models: dict[str, str]
) -> None:
    rows = {client: [_row(task, ["reef"])] * 3 for client in ("ada", "bob")}
    rows["bob"] = [*rows["bob"], _row(task, ["reef"] * 9)]
    kind, tokens = ("llama", 45) if task == "causal-lm" else ("bert", 11)
    data = {"max_length": 10, "truncation": False}
    assert refused(tmp_path, models[kind], task, rows, data=data) == (
        f"client bob, training rows: row 4 has {tokens} tokens, more than data.max_length (10), "
        "and data.truncation is false; shorten the row, raise data.max_length, or set "
        "data.truncation to true"
    )
    _, notes = task_scene(
        tmp_path, models[kind], task, data={"max_length": 60, "truncation": False}
    )
    assert not [text for text in notes if "max_length" in text]


def test_a_long_row_of_the_common_test_set_is_counted_and_refused(
    tmp_path: Path, models: dict[str, str]
) -> None:
    write_clients(tmp_path / "data", {"ada": [_row("masked-lm", ["reef"])] * 3})
    (tmp_path / "data/test.jsonl").write_text(json.dumps({"text": "reef " * 9}) + "\n")
    _, notes = task_scene(tmp_path, models["bert"], "masked-lm", data={"max_length": 6})
    assert notes[-1] == (
        "data.max_length is 6: 0 of 5 rows (0.0%), of 0 of 1 client, are longer and cut; 1 of 1 "
        "row of the common test set; the longest has 11 tokens"
    )
    data = {"max_length": 6, "truncation": False}
    told = refused(tmp_path, models["bert"], "masked-lm", data=data)
    assert told.startswith(
        "the common test set: row 1 has 11 tokens, more than data.max_length (6)"
    )


WRONG: dict[str, tuple[str, str, Any, dict[str, Any], str]] = {
    "no mask": ("masked-lm", "gpt2", None, {}, "has no mask token, which task masked-lm puts"),
    "no masked head": (
        "masked-lm", "bert-with-pooler", None, {},
        "has no masked language model's head among its weights (cls.predictions.bias is missing)",
    ),
    "no text": (
        "masked-lm", "bert", {"ada": [{"tokens": ["a"], "tags": ["O"]}] * 2}, {},
        "task masked-lm needs rows of text or text and label; ",
    ),
    "no words": (
        "masked-lm", "bert", {"ada": [{"text": "quux"}] * 2}, {},
        "no training row of any client has anything to predict: a text is empty",
    ),
    "no tags": (
        "token-classification", "bert", {"ada": [{"text": "a", "label": "b"}] * 2}, {},
        "task token-classification needs rows of tokens and tags; ",
    ),
    "no tag": (
        "token-classification", "bert", {"ada": [{"tokens": [], "tags": []}] * 2}, {},
        "no training row of any client has a tag",
    ),
    "other lengths": (
        "token-classification", "bert", {"ada": [{"tokens": ["a", "b"], "tags": ["O"]}] * 2}, {},
        "ada/train.jsonl:1: 2 tokens but 1 tags; write exactly one tag for each token.",
    ),
    "names for numbers": (
        "regression", "bert", {"ada": [{"text": "a", "label": "good"}] * 2}, {},
        "a label is `good`, and a regression predicts numbers; write a number, or set model.task",
    ),
    "numbers past squaring": (
        "regression", "bert", {"ada": [{"text": "a", "label": 1e200}] * 2}, {},
        "a label is 1e+200, too large to compute with; write it in larger units",
    ),
    "one class": (
        "classification", "bert", {"ada": [{"text": "a", "label": "sea"}] * 2}, {},
        "every row has the label `sea`, so that there is nothing to tell apart; name the column",
    ),
    "numbers for names": (
        "multi-label-classification", "bert", {"ada": [{"text": "a", "label": [0.5]}] * 2}, {},
        "labels are decimal numbers, and task multi-label-classification tells classes apart",
    ),
    "no label at all": (
        "multi-label-classification", "bert", {"ada": [{"text": "a", "label": []}] * 2}, {},
        "no training row of any client has a label",
    ),
    "no bias": (
        "multi-label-classification", "llama", None,
        {"model": {"pooling": "model"}, "adapter": {"head": "ridge"}},
        "adapter.head 'ridge' needs a bias under this task, which the model's head 'score' has not",
    ),
    "no such class": (
        "token-classification", "bert", None, {"train": {"class_weights": {"B-SEE": 2.0}}},
        "train.class_weights names B-SEE, which is no label of the data; did you mean \"B-SEA\"?",
    ),
    "no head to train": (
        "masked-lm", "bert", None, {"adapter": {"method": "none"}},
        "model.task is masked-lm, which has no head: nothing would train",
    ),
    "no classes to solve": (
        "regression", "bert", None, {"adapter": {"head": "lda"}},
        "model.task is regression, whose rows have no class: only ridge solves its head",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_a_task_cannot_use(name: str, tmp_path: Path, models: dict[str, str]) -> None:
    task, kind, rows, sections, message = WRONG[name]
    assert message in refused(tmp_path, models[kind], task, rows, **sections)


def test_a_label_that_only_a_test_row_has(tmp_path: Path, models: dict[str, str]) -> None:
    for task, good, bad in (
        (
            "token-classification",
            {"tokens": ["a"], "tags": ["O"]},
            {"tokens": ["a"], "tags": ["X"]},
        ),
        (
            "multi-label-classification",
            {"text": "a", "label": ["O"]},
            {"text": "a", "label": ["X"]},
        ),
    ):
        write_clients(tmp_path / task / "data", {"ada": [good] * 2, "bob": [good] * 2})
        (tmp_path / task / "data/bob/test.jsonl").write_text(json.dumps(bad) + "\n")
        told = refused(tmp_path / task, models["bert"], task)
        assert "Client bob, test rows" in told
        assert "label `X` is in test rows, but in no client's training rows" in told


def test_class_weights_of_the_whole_federation(tmp_path: Path, models: dict[str, str]) -> None:
    rows = {
        "ada": [{"text": "a", "label": "sea"}] * 6 + [{"text": "a", "label": "sky"}],
        "bob": [{"text": "a", "label": "sky"}] * 2 + [{"text": "a", "label": "life"}] * 3,
    }

    def weights(**train: Any) -> dict[str, list[float] | None]:
        setup, _ = task_scene(tmp_path, models["bert"], "classification", rows, train=train)
        found = {}
        for client in rows:
            terms = setup.bench.objective.terms(setup.bench.examples(client, "train"))
            found[client] = terms["weight"].tolist() if "weight" in terms else None
        return found

    # life, sea, sky: 3, 6 and 3 of 12 rows, whoever has them.
    everyone = [12 / (3 * 3), 12 / (3 * 6), 12 / (3 * 3)]
    assert weights(class_weights="balanced") == {client: pytest.approx(everyone) for client in rows}
    own = {"ada": [0.0, 7 / (2 * 6), 7 / 2], "bob": [5 / (2 * 3), 0.0, 5 / (2 * 2)]}
    for train in ({"class_weights": "balanced-per-client"}, {"class_balance": True}):
        assert weights(**train) == {client: pytest.approx(found) for client, found in own.items()}
    assert weights(class_weights={"sky": 2.5}) == {client: [1.0, 1.0, 2.5] for client in rows}
    assert weights() == dict.fromkeys(rows)
