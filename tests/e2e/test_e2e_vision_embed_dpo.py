"""Images, pairs and preferences from an experiment file to predictions, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.images import COLOURS, painted, save_picture
from tests.support.task_sites import pair_rows, preference_rows

if TYPE_CHECKING:
    from tests.support.gallery import Gallery
    from tests.support.models import Zoo

Rows = Sequence[Mapping[str, Any]]


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def seen(folder: Path, *, texts: bool) -> None:
    """Clients of uneven rows; images are files beside them."""
    for number, client in enumerate(("ada", "bob", "cy")):
        rows = []
        for i in range(8 + 4 * number):
            colour = sorted(COLOURS)[(i + number) % 3]
            save_picture(folder / client / "seen" / f"{i}.png", colour, 50 * number + i)
            said = {"text": f"{colour} reef {'boat ' * (i % 5)}"} if texts else {"label": colour}
            rows.append({"image": f"seen/{i}.png", **said})
        write(folder / client / "train.jsonl", rows)
    if not texts:
        rows = [{"image": painted(c, 900 + i).tolist(), "label": c}
                for i, c in enumerate(COLOURS)]  # fmt: skip
        write(folder / "test.jsonl", rows)


def told(folder: Path, rows: Mapping[str, Rows]) -> None:
    for client, own in rows.items():
        write(folder / client / "train.jsonl", own)


SIZES = {"ada": 9, "bob": 6, "cy": 12}
CASES: dict[str, tuple[str, Callable[[Path], None], dict[str, Any]]] = {
    "image-classification": ("gallery vit", lambda path: seen(path, texts=False), {}),
    "embedding": ("zoo bert-with-pooler", lambda path: told(path, pair_rows(SIZES)), {}),
    "dual": (
        "gallery clip", lambda path: seen(path, texts=True), {"train": {"learn_temperature": True}},
    ),
    "preference": ("zoo llama", lambda path: told(path, preference_rows(SIZES)), {}),
}  # fmt: skip
METRICS = {
    "image-classification": "accuracy", "embedding": "ndcg@10", "dual": "ndcg@10",
    "preference": "reward_accuracy",
}  # fmt: skip


@pytest.fixture(scope="module")
def user(zoo: Zoo, gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with data and an experiment file of each task, run."""
    from tests.e2e.conftest import Folder

    folder = Folder(tmp_path_factory.mktemp("seen"))
    for name, (model, rows, sections) in CASES.items():
        place, kind = model.split()
        rows(folder.path / name)
        task = "embedding" if name == "dual" else name
        path = gallery(kind) if place == "gallery" else zoo(kind)
        length = {} if task == "image-classification" else {"max_length": 16}
        written = {
            "model": {"name_or_path": path, "task": task},
            "data": {"path": f"{name}/", **length},
            "train": {"per_device_train_batch_size": 4, **sections.get("train", {})},
            "federation": {"num_rounds": 2, "clients_per_round": 2},
        }
        (folder.path / f"{name}.yaml").write_text(yaml.safe_dump(written))
        found = folder.run("run", f"{name}.yaml")
        assert found.returncode == 0, found.stderr
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_measured_against_its_baselines(user: Any, name: str) -> None:
    summary = user.json(f"runs/{name}/summary.json")
    assert summary["metric"] == METRICS[name]
    assert summary["final"] is not None
    assert all(0 <= value <= 1 for value in (summary["final"], *summary["baselines"].values()))
    assert set(summary["own"]) == {"federated", "local", "pooled"}
    ends = summary["intervals"]["federated"]
    assert (ends is None) == (name == "preference"), "only there is one row held out"
    assert ends is None or ends[0] <= summary["final"] <= ends[1]
    assert summary["trainable_parameters"] > 0
    losses = [line["loss"] for line in user.lines(f"runs/{name}/rounds.jsonl")[1:]]
    assert all(loss is not None and loss >= 0 for loss in losses)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in ("dual", "embedding") else [])
        for name in CASES
    ],
)
def test_eval_gives_the_numbers_of_the_run(user: Any, name: str) -> None:
    found = user.run("eval", f"runs/{name}", "--format", "json")
    assert (found.returncode, found.stderr) == (0, "")
    document, summary = json.loads(found.stdout), user.json(f"runs/{name}/summary.json")
    assert document["final"] == pytest.approx(summary["final"], abs=1e-6)
    own = user.run("eval", f"runs/{name}", "--data", f"{name}/ada/train.jsonl")
    assert own.stdout.startswith(f"{METRICS[name]} "), own.stderr


def test_new_images_are_labelled(user: Any) -> None:
    rows = [{"image": f"seen/{i}.png", "note": i} for i in range(4)]
    write(user.path / "image-classification" / "ada" / "new.jsonl", rows)
    words = ("--input", "image-classification/ada/new.jsonl", "--top", "2")
    found = user.run("predict", "runs/image-classification", *words)
    assert (found.returncode, found.stderr) == (0, "")
    said = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["note"] for row in said] == [0, 1, 2, 3]
    for row in said:
        assert row["prediction"] in COLOURS
        assert len(row["probabilities"]) == 2
        assert row["image"].endswith(f"ada/seen/{row['note']}.png")


def test_texts_and_images_become_vectors(user: Any) -> None:
    found = user.run("predict", "runs/embedding", "--text", "reef tide", "--text", "boat")
    vectors = [json.loads(line)["embedding"] for line in found.stdout.splitlines()]
    assert [len(vector) for vector in vectors] == [32, 32]
    found = user.run("predict", "runs/dual", input='{"text": "reef"}\n')
    (row,) = [json.loads(line) for line in found.stdout.splitlines()]
    assert sum(value**2 for value in row["text_embedding"]) == pytest.approx(1, abs=1e-5)
    write(user.path / "dual" / "new.jsonl", [{"image": "ada/seen/0.png"}])
    found = user.run("predict", "runs/dual", "--input", "dual/new.jsonl")
    assert set(json.loads(found.stdout)) == {"image", "image_embedding"}


def test_a_preference_model_writes(user: Any) -> None:
    words = ("--text", "reef", "--max-new-tokens", "4")
    found = user.run("predict", "runs/preference", *words)
    assert found.returncode == 0, found.stderr
    assert isinstance(json.loads(found.stdout)["generated"], str)


BAD: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a text for an image model": (
        ("predict", "runs/image-classification", "--text", "reef"), 3, "the row has no `image`",
    ),
    "an image that is not there": (
        ("predict", "runs/image-classification", "--input", "gone.jsonl"), 3,
        "gone.jsonl:1: ",
    ),
    "rows of another task": (
        ("run", "embedding.yaml", "data.path=preference/", "output_dir=runs/x"), 3,
        "task embedding needs rows of anchor and positive or",
    ),
    "a key of another task": (
        ("run", "embedding.yaml", "train.dpo_beta=0.2", "output_dir=runs/x"), 2,
        "train.dpo_beta is 0.2, but model.task is embedding: only preference reads it",
    ),
    "pixels without a head of random features": (
        ("run", "image-classification.yaml", "adapter.head_features=8", "output_dir=runs/x"), 2,
        "adapter.head_features is 8, but model.task is image-classification",
    ),
    "packed preferences": (
        ("run", "preference.yaml", "data.packing=true", "output_dir=runs/x"), 2,
        "only causal-lm packs rows",
    ),
    "texts longer than CLIP reads": (
        ("run", "dual.yaml", "data.max_length=77", "output_dir=runs/x"), 4, "takes at most 16",
    ),
    "a text model for images": (
        ("run", "image-classification.yaml", "model.name_or_path=MODEL", "output_dir=runs/x"), 4,
        "cannot be loaded as AutoModelForImageClassification",
    ),
    "batches of one pair": (
        ("run", "embedding.yaml", "train.per_device_train_batch_size=1", "output_dir=runs/x"), 2,
        "nothing would train; use more, 32 say",
    ),
    "a whole model of 8 bits": (
        ("run", "preference.yaml", "model.load_in_8bit=true", "adapter.method=full",
         "output_dir=runs/x"), 2, "which trains the weights themselves",
    ),
}  # fmt: skip


# Every second one is looked at in the long tests.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (i % 2)) for i, name in enumerate(BAD)],
)
def test_what_cannot_be_done_is_told(user: Any, zoo: Zoo, name: str) -> None:
    words, code, message = BAD[name]
    write(user.path / "gone.jsonl", [{"image": "nowhere.png"}])
    found = user.run(*(word.replace("MODEL", zoo("bert")) for word in words))
    assert found.returncode == code, found.stderr
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not (user.path / "runs/x").exists()


def test_a_broken_image_stops_a_run_before_it_trains(user: Any) -> None:
    place = user.path / "image-classification" / "bob"
    picture = place / "seen" / "3.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:200])
    found = user.run("run", "image-classification.yaml", "output_dir=runs/x")
    picture.write_bytes(content)
    assert found.returncode == 3
    assert "image-classification/bob/train.jsonl:4: `image` " in found.stderr
    assert "bob/seen/3.png cannot be read as an image" in found.stderr
    assert not (user.path / "runs/x").exists()
