"""What sites agree on from their offers is what a simulation finds in all rows together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.certs.begin import begin
from atoll.config import Loaded, load
from atoll.data import load as load_data
from atoll.data.clients import Options, load_client
from atoll.data.docstrings import LIBRARIES
from atoll.errors import ConfigError, DataError, PolicyError, RunError
from atoll.experiment.joining import Place, check_overrides, offered, taken_up
from atoll.experiment.offers import agreed, server_data, versions
from atoll.experiment.rows import check_named
from atoll.experiment.rows import load_data as load_rows
from atoll.experiment.terms import Agreed, Offer, Opening
from atoll.policy import Policy

TEXTS = {
    "ada": [("good day", "yes"), ("bad day", "no"), ("so so", "yes"), ("rain", "no")],
    "bob": [("sun", "maybe"), ("wind", "no"), ("snow", "maybe")],
    "cyd": [("hail", "10"), ("fog", "9")],
}
NUMBERS = {
    "ada": [("one", 1.5), ("two", 2.25), ("three", 2.5)],
    "bob": [("four", 3.125), ("five", 11.0)],
}


def folder(path: Path, rows: Mapping[str, Sequence[tuple[str, Any]]]) -> Path:
    for client, own in rows.items():
        (path / client).mkdir(parents=True)
        lines = [json.dumps({"text": text, "label": label}) for text, label in own]
        (path / client / "train.jsonl").write_text("\n".join(lines))
    return path


def experiment(path: Path, task: str = "classification", **values: object) -> Loaded:
    tree = {"model": {"name_or_path": "builtin:minilm", "task": task},
            "data": {"path": str(path / "data")}, **values}  # fmt: skip
    (path / "fl.yaml").write_text(json.dumps(tree))
    return load(path / "fl.yaml")


def opening(loaded: Loaded, told: Agreed | None = None) -> Opening:
    from atoll.config import dump

    return Opening(versions=versions(), run="run", experiment=dump(loaded.experiment), agreed=told)


def place(path: Path, client: str, **rules: object) -> Place:
    policy = Policy.model_validate_json(json.dumps({"label_names": True, "min_rows": 1, **rules}))
    return Place(client, path / "data" / client, path / "state" / client, policy)


def offers(path: Path, loaded: Loaded, clients: Sequence[str], **rules: object) -> dict[str, Offer]:
    found = {}
    for client in clients:
        here = place(path, client, **rules)
        found[client] = offered(taken_up(opening(loaded), "run", here), here)
    return found


def test_labels_and_counts_are_those_of_all_rows_together(tmp_path: Path) -> None:
    whole = load_data(folder(tmp_path / "data", TEXTS))
    loaded = experiment(tmp_path)
    brought = offers(tmp_path, loaded, list(TEXTS))
    told = agreed(loaded.experiment, brought, "base")
    data = server_data(loaded.experiment, brought, told)
    assert told.labels == whole.labels == ("10", "9", "maybe", "no", "yes")
    assert (data.clients, data.kind, data.labels) == (whole.clients, whole.kind, whole.labels)
    for client, count in whole.counts.items():
        assert (data.counts[client].train, data.counts[client].test) == (count.train, count.test)


def test_a_site_reads_the_rows_that_a_simulation_reads(tmp_path: Path) -> None:
    whole = load_data(folder(tmp_path / "data", TEXTS), holdout=0.3, seed=5)
    for client in TEXTS:
        options = Options({}, 0.3, 5, whole.labels)
        own = load_client(tmp_path / "data" / client, client, options)
        for split in ("train", "test"):
            assert own.rows(client, split) == whole.rows(client, split)


def test_moments_are_those_of_all_rows_together(tmp_path: Path) -> None:
    whole = load_data(folder(tmp_path / "data", NUMBERS), labels=())
    loaded = experiment(tmp_path, "regression")
    told = agreed(loaded.experiment, offers(tmp_path, loaded, list(NUMBERS)), "base")
    assert whole.moments is not None
    assert told.moments is not None
    assert told.labels is None
    assert (told.moments.count, told.moments.mean, told.moments.square) == (
        whole.moments.count, whole.moments.mean, whole.moments.square,
    )  # fmt: skip
    # What the file says of labels, no site tells.
    scale = {"path": str(tmp_path / "data"), "label_scale": {"mean": 4, "deviation": 3}}
    loaded = experiment(tmp_path, "regression", data=scale)
    brought = offers(tmp_path, loaded, list(NUMBERS))
    assert [offer.moments for offer in brought.values()] == [None, None]
    assert agreed(loaded.experiment, brought, "base").moments is None


def test_labels_are_counted_where_classes_weigh_by_all_rows(tmp_path: Path) -> None:
    whole = load_data(folder(tmp_path / "data", TEXTS))
    loaded = experiment(tmp_path, train={"class_weights": "balanced"}, adapter={"head": "train"})
    told = agreed(loaded.experiment, offers(tmp_path, loaded, list(TEXTS)), "base")
    counts: dict[str, int] = {}
    for client in whole.clients:
        for row in whole.rows(client, "train"):
            counts[row["label"]] = counts.get(row["label"], 0) + 1
    assert told.label_counts == counts


def test_names_of_labels_that_stay_have_to_be_given(tmp_path: Path) -> None:
    folder(tmp_path / "data", TEXTS)
    loaded = experiment(tmp_path, data={"path": str(tmp_path / "data"), "labels": ["no", "yes"]})
    with pytest.raises(PolicyError, match="label_names"):
        offers(tmp_path, experiment(tmp_path), ["ada"], label_names=False)
    brought = offers(tmp_path, loaded, ["ada"], label_names=False)
    assert brought["ada"].labels is None
    assert agreed(loaded.experiment, brought, "").labels == ("no", "yes")


PRIVACY = {
    "noise": {"noise_multiplier": 1.0},
    "masks": {"secure_aggregation": True},
    "ckks": {"secure_aggregation": "ckks"},
    "both": {"secure_aggregation": True, "noise_multiplier": 1.0},
    "rows": {"unit": "example", "noise_multiplier": 1.0},
}


@pytest.mark.parametrize("how", PRIVACY)
def test_who_is_hidden_tells_neither_labels_nor_how_many_rows_there_are(
    how: str, tmp_path: Path
) -> None:
    folder(tmp_path / "data", TEXTS)
    begin(tmp_path / "fed", ["localhost"], list(TEXTS), None)
    names = ["10", "9", "maybe", "no", "yes"]
    data = {"path": str(tmp_path / "data"), "labels": names}
    loaded = experiment(tmp_path, data=data, adapter={"head": "train"}, privacy=PRIVACY[how])
    (loaded.path.parent / "state" / "ada").mkdir(parents=True)
    here = replace(place(tmp_path, "ada"), certs=tmp_path / "fed" / "ada")
    brought = offered(taken_up(opening(loaded), "run", here), here)
    # Where each row hides by itself, how many there are is no secret.
    assert (brought.train, brought.test) == ((3, 1) if how == "rows" else (0, 0))
    said = brought.model_dump_json(exclude={"identity"})
    assert not any(f'"{name}"' in said for name in names)
    assert (brought.labels, brought.moments, brought.label_counts) == (None, None, None)
    assert agreed(loaded.experiment, {"ada": brought}, "").labels == tuple(names)


@pytest.mark.parametrize("how", PRIVACY)
def test_labels_that_nobody_tells_have_to_be_named(how: str, tmp_path: Path) -> None:
    folder(tmp_path / "data", {**TEXTS, "eve": [("fever", "HIV_positive_Mr_Jones")]})
    loaded = experiment(tmp_path, privacy=PRIVACY[how])
    for check in (check_named, load_rows):
        with pytest.raises(
            ConfigError, match=r"fl\.yaml:1: data\.labels is missing, .* list all"
        ) as told:
            check(loaded)
        assert "Jones" not in str(told.value)
    for kind in ("causal-lm", "embedding"):
        check_named(experiment(tmp_path, kind, privacy=PRIVACY[how]))


def test_a_data_set_that_says_which_labels_there_are_is_believed(tmp_path: Path) -> None:
    data = {"path": "builtin:docstrings", "partition": {"num_clients": 3}}
    loaded = experiment(tmp_path, data=data, privacy=PRIVACY["noise"])
    assert load_rows(loaded).labels == tuple(sorted(LIBRARIES))


def test_rows_of_two_kinds_are_told_with_their_clients(tmp_path: Path) -> None:
    folder(tmp_path / "data", TEXTS)
    loaded = experiment(tmp_path)
    brought = offers(tmp_path, loaded, ["ada", "bob"])
    other = {**brought, "bob": brought["bob"].model_copy(update={"kind": "text"})}
    with pytest.raises(DataError, match=r"text/label rows of ada, text rows of bob"):
        agreed(loaded.experiment, other, "")


def test_another_version_is_refused_with_both(tmp_path: Path) -> None:
    folder(tmp_path / "data", TEXTS)
    loaded = experiment(tmp_path)
    old = opening(loaded).model_copy(update={"versions": {**versions(), "torch": "1.0"}})
    with pytest.raises(RunError, match=r"the server runs torch 1\.0, and this site"):
        taken_up(old, "run", place(tmp_path, "ada"))


@pytest.mark.parametrize("text", ["train.learning_rate=1", "data.path=x", "privacy={}", "seed=1",
                                  "model.trust_remote_code=true"])  # fmt: skip
def test_a_site_sets_what_is_its_own_alone(text: str) -> None:
    with pytest.raises(ConfigError, match="the rest is the federation's"):
        check_overrides([text])
    check_overrides(["train.per_device_train_batch_size=4", "data.columns.text=body"])
