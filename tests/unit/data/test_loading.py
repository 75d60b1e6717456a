from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.data import ClientCount, FederatedData, load
from atoll.data.partition import dirichlet, iid, natural
from atoll.errors import DataError
from tests.support.images import save_picture


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"text": f"row {index}", "label": label} for index, label in enumerate(labels)]


def all_rows(data: FederatedData) -> list[dict[str, Any]]:
    return [
        row
        for client in data.clients
        for row in data.rows(client, "train") + data.rows(client, "test")
    ]


@pytest.fixture
def islands(tmp_path: Path) -> Path:
    write(tmp_path / "b" / "train.jsonl", labelled(*"xxxxxxxxxx"))
    write(tmp_path / "a" / "train.jsonl", labelled(*"xyxyxy"))
    write(tmp_path / "a" / "test.jsonl", labelled("y"))
    write(tmp_path / "c" / "train.jsonl", [])
    (tmp_path / "d").mkdir()
    write(tmp_path / "e" / "train.jsonl", labelled("z"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(b"")
    return tmp_path


def test_natural_clients(islands: Path) -> None:
    data = load(islands)
    assert (data.clients, data.skipped) == (("a", "b", "e"), ("c", "d", "images"))
    assert data.reasons == {
        "c": "train.jsonl has no rows", "d": "an empty folder",
        "images": "no train file; found cat.png",
    }  # fmt: skip
    assert (data.labels, data.kind, data.test()) == (("x", "y", "z"), "text/label", None)
    assert data.rows("a", "test") == labelled("y")
    assert [len(data.rows("b", split)) for split in ("train", "test")] == [9, 1]
    assert data.rows("e", "test") == []
    card = data.card()
    assert card["clients"]["a"] == {"train": 6, "test": 1, "labels": 2}
    assert (card["train"], card["own_test"], card["test"]) == (16, 2, None)
    assert (card["labels"], card["skipped"]) == (3, ["c", "d", "images"])
    json.dumps(card)
    # As a server has it, to which sites do not tell how many rows they hold.
    silent = replace(data, counts=dict.fromkeys(data.clients, ClientCount(0, 0, 0))).card()
    assert silent == {
        **card, "clients": dict.fromkeys("abe"), "train": None, "own_test": None
    }  # fmt: skip


def test_rows_are_read_when_asked_for_and_only_a_few_clients_stay(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"c{number:02}" / "train.jsonl", labelled("x", "x"))
    data = load(tmp_path)
    for client in data.clients:
        data.rows(client, "train")
        (tmp_path / client / "train.jsonl").unlink()
    assert data.rows("c11", "train")
    with pytest.raises(DataError, match="cannot be read"):
        data.rows("c00", "train")


def test_a_caller_cannot_change_what_the_next_one_gets(islands: Path) -> None:
    data = load(islands)
    data.rows("a", "train").clear()
    assert len(data.rows("a", "train")) == 6


def test_a_common_test_set_beside_natural_clients(islands: Path) -> None:
    write(islands / "test.jsonl", labelled("x", "y"))
    assert load(islands).test() == labelled("x", "y")
    write(islands / "test.jsonl", [{"text": "no label"}])
    with pytest.raises(DataError, match=r"test\.jsonl\) has text rows, the clients have text/l"):
        load(islands)


def test_one_data_set_is_divided(tmp_path: Path) -> None:
    rows = labelled(*range(10)) * 5
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", labelled(3, 4))
    write(tmp_path / "val.jsonl", labelled(5))
    data = load(tmp_path, partition=iid(num_clients=4), holdout=0.2)
    assert data.clients == ("client-00", "client-01", "client-02", "client-03")
    assert data.labels == tuple(str(number) for number in range(10))
    assert len(all_rows(data)) == 50
    assert [len(data.rows(client, "test")) for client in data.clients] == [3, 3, 2, 2]
    assert [row["label"] for row in data.test() or []] == ["3", "4"]
    assert [row["label"] for row in data.val() or []] == ["5"]


def test_one_file_without_test_rows(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", labelled(*"ab") * 10)
    data = load(tmp_path / "all.jsonl", partition=iid(num_clients=2))
    assert (data.test(), data.card()["own_test"]) == (None, 2)
    none = load(str(tmp_path / "all.jsonl"), partition=iid(num_clients=2), holdout=0.0)
    assert none.card()["own_test"] == 0


def test_clients_without_rows_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", labelled(*"ab") * 20)
    data = load(tmp_path, partition=dirichlet(num_clients=20, alpha=0.01))
    assert data.skipped
    assert len(data.clients) + len(data.skipped) == 20
    with pytest.raises(DataError, match="no client"):
        data.rows(data.skipped[0], "train")


def test_the_fingerprint_is_of_the_content(tmp_path: Path, islands: Path) -> None:
    first = load(islands).fingerprint
    assert len(first) == 64
    copied = islands.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert load(copied).fingerprint == first
    assert load(copied, seed=1).fingerprint != first
    write(copied / "e" / "train.jsonl", labelled("x"))
    assert load(copied).fingerprint != first


def test_an_image_counts_by_its_content(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", [{"image": "1.png", "label": "cat"}])
    prints = []
    for colour in ("red", "green"):
        save_picture(tmp_path / "a" / "1.png", colour, 0)
        prints.append(load(tmp_path).fingerprint)
    assert prints[0] != prints[1]


def test_labels_agree_between_train_and_test(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", labelled(1, True))
    write(tmp_path / "a" / "test.jsonl", labelled("1", "true"))
    assert load(tmp_path).labels == ("1", "true")


def test_a_test_label_that_nobody_trains_is_refused(islands: Path) -> None:
    write(islands / "b" / "test.jsonl", labelled("z", "q", "p"))
    with pytest.raises(DataError, match=r"b/test\.jsonl:2\): labels `p`, `q` are in test rows"):
        load(islands)
    write(islands / "b" / "test.jsonl", labelled("z"))
    write(islands / "test.jsonl", labelled("w"))
    with pytest.raises(DataError, match=r"The common test set \(.*/test\.jsonl:1\): label `w`"):
        load(islands)


def test_labels_may_be_given(islands: Path) -> None:
    write(islands / "test.jsonl", labelled("w"))
    assert load(islands, labels=["w", "z", "y", "x"]).labels == ("w", "z", "y", "x")
    with pytest.raises(DataError, match=r"a/train\.jsonl\): label `y` is not among the labels"):
        load(islands, labels=["w", "x"])


def test_regression_is_decided_by_all_clients(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", labelled(1, 2))
    write(tmp_path / "b" / "train.jsonl", labelled(0.5, 2))
    write(tmp_path / "b" / "test.jsonl", labelled(7))
    data = load(tmp_path, holdout=0.0)
    assert data.labels is None
    assert [row["label"] for row in data.rows("a", "train")] == [1.0, 2.0]
    assert [row["label"] for row in data.rows("b", "test")] == [7.0]
    write(tmp_path / "b" / "test.jsonl", labelled("good"))
    with pytest.raises(DataError, match="`good` among labels that are numbers"):
        load(tmp_path)


def test_decimals_of_one_client_and_names_of_another_are_located(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", labelled(1, 2))
    write(tmp_path / "b" / "train.jsonl", labelled(0.5, 2))
    write(tmp_path / "c" / "train.jsonl", labelled("good", 2))
    says = (
        r"Labels mix decimal numbers with names \(`good`\); .*"
        r"Decimals: client b \(.*b/train\.jsonl\); names: client c \(.*c/train\.jsonl\)\.$"
    )
    for holdout in (0.0, 0.5):
        with pytest.raises(DataError, match=says):
            load(tmp_path, holdout=holdout)


def test_columns_reach_every_file(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"body": "a", "intent": "x", "owner": "me"}] * 3)
    write(tmp_path / "test.jsonl", [{"body": "a", "intent": "x"}])
    columns = {"text": "body", "label": "intent"}
    data = load(tmp_path, partition=natural(by="owner"), columns=columns)
    assert data.rows("me", "train")[0] == {"owner": "me", "text": "a", "label": "x"}
    assert data.test() == [{"text": "a", "label": "x"}]


def test_clients_of_different_kinds_are_refused(islands: Path) -> None:
    write(islands / "b" / "train.jsonl", [{"text": "a"}])
    says = r"b/train\.jsonl\) are text rows, .*a/train\.jsonl\) are text/label rows; .* `label`"
    with pytest.raises(DataError, match=says):
        load(islands)


def test_mistakes_are_sentences(tmp_path: Path, islands: Path) -> None:
    one = tmp_path / "one"
    write(one / "train.jsonl", labelled("a"))
    cases: list[tuple[Path | str, dict[str, Any], str]] = [
        (islands, {"partition": iid(num_clients=2)}, "already divided"),
        (one, {}, "one data set; say how it falls into clients"),
        (one / "train.jsonl", {"partition": iid(num_clients=2)}, "2 clients are more than the 1"),
        (one, {"holdout": 1.0}, "holdout is 1.0"),
        (one / "trian.jsonl", {}, r"There is no file .*did you mean `train.jsonl`"),
        ("nowhere/at/all", {}, "There is no file or folder nowhere/at/all"),
        ("builtin:docstring", {}, r"no built-in data set .*did you mean `builtin:docstrings`"),
        (islands / "d", {}, "holds no data"),
        (islands / "c" / "train.jsonl", {"partition": iid(num_clients=1)}, "the file is empty"),
    ]
    for path, options, says in cases:
        with pytest.raises(DataError, match=says):
            load(path, **options)


def test_a_federation_without_a_training_row_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", [])
    write(tmp_path / "b" / "test.jsonl", labelled("x"))
    with pytest.raises(DataError, match=r"\(a: train.jsonl has no rows, b: no train file"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["data.jsonl", "Train.jsonl", "train.tsv", "train.json"])
def test_a_folder_without_a_train_file_is_told(islands: Path, name: str) -> None:
    write(islands / "new" / name, labelled("x"))
    assert load(islands).reasons["new"] == f"no train file; found {name}"


def test_what_may_have_been_meant_is_named_first(islands: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "train.tsv", ".hidden"):
        write(islands / "new" / name, labelled("x"))
    assert load(islands).reasons["new"] == (
        "no train file; found train.tsv, a.txt, b.txt and 1 more"
    )


def test_only_files_that_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.tsv", labelled("x"))
    with pytest.raises(DataError, match=r"It holds a/train\.tsv, whose format is not read"):
        load(tmp_path)


def test_a_partition_that_does_not_fit_names_the_file(tmp_path: Path) -> None:
    rows = [{"text": "a", "client": "x"}, {"text": "b"}]
    write(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=r"train\.jsonl: Row 2 has no `client`"):
        load(tmp_path, partition=natural())


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", labelled("x"))
    write(tmp_path / "train.jsonl.gz", [])
    with pytest.raises(DataError, match=r"train.jsonl and train.jsonl.gz, so it is not clear"):
        load(tmp_path)


def test_loose_files_are_pointed_at(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", labelled("x"))
    with pytest.raises(DataError, match=r"It holds rows\.jsonl: rename one to train"):
        load(tmp_path)


def test_the_built_in_data() -> None:
    data = load("builtin:docstrings", partition=dirichlet(num_clients=20, alpha=0.1))
    assert len(data.labels or ()) == 20
    assert len(data.test() or []) > 300
    assert data.card()["own_test"] > 150


QUIET = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"touched the network: {args}")
sys.addaudithook(refuse)
import atoll.data
heavy = {"torch", "datasets", "flwr_datasets", "pandas", "pyarrow", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
from atoll.data.partition import natural, size_linear
load = atoll.data.load
for name in ("train.jsonl", "train.csv", "train.parquet"):
    load(f"{sys.argv[1]}/{name}", partition=natural())
load(f"{sys.argv[1]}/train.jsonl", partition=size_linear(num_clients=2))
"""


def test_imports_are_light_and_local_data_needs_no_network(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    rows = [{"text": "a", "client": str(number % 3)} for number in range(12)]
    write(tmp_path / "train.jsonl", rows)
    csv.write_csv(pa.Table.from_pylist(rows), tmp_path / "train.csv")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    command = [sys.executable, "-W", "error", "-c", QUIET, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_rows_that_change_after_the_first_look(tmp_path: Path) -> None:
    for client in ("ada", "bob"):
        (tmp_path / client).mkdir()
        (tmp_path / client / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    data = load(tmp_path, holdout=0.0)
    path = tmp_path / "bob" / "train.jsonl"
    path.write_text('{"text": "a"}\n{"text": "B"}\n')
    assert len(data.rows("ada", "train")) == 2
    with pytest.raises(DataError, match=r"rows of client bob \(.*bob/train.jsonl\) have changed"):
        data.rows("bob", "train")
