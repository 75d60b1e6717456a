from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from atoll.data import load
from atoll.data.clients import Options
from atoll.data.hub import is_hub_id, tables_of
from atoll.data.loading import load_as
from atoll.data.partition import iid
from atoll.errors import DataError


def test_class_numbers_become_names() -> None:
    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=["no", "yes"]),
            "tags": List(ClassLabel(names=["O", "B"])),
        }
    )
    content = {"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], []]}
    loaded = DatasetDict({"train": Dataset.from_dict(content, features=features)})
    table = tables_of(loaded, origin="owner/name")["train"]
    assert table.rows == [
        {"text": "a", "label": "yes", "tags": ["O", "B"]},
        {"text": "b", "label": None, "tags": []},
    ]
    assert table.where(1) == "owner/name (train), row 2"


def test_classes_that_a_data_set_declares_need_no_look_at_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["never", "no", "yes"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    content = {"text": ["a", "b", "c", "d"], "label": [1, 2, 1, 2]}
    loaded = DatasetDict({"train": Dataset.from_dict(content, features=features)})
    monkeypatch.setattr("atoll.data.loading.read_hub", lambda path: tables_of(loaded, origin=path))
    parts = iid(num_clients=2)
    collected = load("owner/name", partition=parts, holdout=0.0)
    options = Options({}, holdout=0.0, seed=0, labels=None, declared=True)
    declared = load_as("owner/name", options, parts)
    assert (collected.labels, collected.collected) == (("no", "yes"), True)
    assert (declared.labels, declared.collected) == (tuple(names), False)


def test_images_stay_bytes() -> None:
    stored = [{"bytes": b"png", "path": None}]
    dataset = Dataset.from_dict({"image": stored}, features=Features({"image": Image()}))
    assert tables_of({"test": dataset}, origin="x")["test"].rows == [{"image": stored[0]}]


@pytest.mark.parametrize(
    ("path", "is_id"),
    [("owner/name", True), ("owner/name:subset", True), ("imdb", True), ("a/b/c", False)],
)
def test_hub_ids(path: str, is_id: bool) -> None:
    assert is_hub_id(path) == is_id


def test_an_unreachable_hub_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy on a closed port: the same on a machine with and without a network.
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(DataError, match="hub cannot be reached"):
        load("owner-that-is-not/name", partition=iid(num_clients=2))
