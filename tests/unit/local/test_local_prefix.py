"""Outputs of frozen blocks that are kept: the same numbers, each row run once, on any shelf."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from atoll.errors import RunError
from atoll.local.boundary import find_boundary
from atoll.local.infer import evaluate, features
from atoll.local.prefix import KIN, Prefix, Shelf, disk_shelf, memory_shelf, with_kin
from atoll.models.objective import Example
from tests.support.federation import Site, distance, moved, probe, site, stir
from tests.support.models import Zoo

UPPER = {
    "bert": r"encoder\.layer\.1\..*",
    "gpt2": r"transformer\.h\.1\..*",
    "llama": r"model\.layers\.1\..*",
}
BLOCKS = {"bert": "backbone.encoder.layer", "gpt2": "transformer.h", "llama": "model.layers"}


def _upper(zoo: Zoo, kind: str, **options: Any) -> Site:
    adapter = {"target_modules": UPPER[kind], **options.pop("adapter", {})}
    return site(zoo, kind, adapter=adapter, **options)


def _kept(there: Site, shelf: Shelf | None = None) -> Site:
    rows = {client: with_kin(there.bench.examples(client, "train")) for client in there.clients}
    boundary = find_boundary(there.bench.model, probe(there.bench.objective, rows))
    assert boundary is not None
    prefix = Prefix(boundary, there.bench.objective.collate, shelf or memory_shelf(), b"")
    bench = replace(there.bench, prefix=prefix, examples=lambda client, split: rows[client])
    return replace(there, bench=bench)


@pytest.mark.parametrize("kind", UPPER)
@pytest.mark.parametrize("group_size", [1, 3])
def test_training_has_the_same_numbers(zoo: Zoo, kind: str, group_size: int) -> None:
    there = _upper(zoo, kind, train={"num_train_epochs": 2}, adapter={"lora_dropout": 0.2})
    plain, _ = there.train(group_size=group_size)
    kept, failures = _kept(there).train(group_size=group_size)
    assert not failures
    for client, expected in plain.items():
        assert distance(moved(kept[client]), moved(expected)) < 1e-9
        assert kept[client].loss == pytest.approx(expected.loss, rel=1e-10)


@pytest.mark.parametrize("kind", UPPER)
def test_scores_and_features_have_the_same_numbers(zoo: Zoo, kind: str) -> None:
    there = _upper(zoo, kind)
    kept, values = _kept(there), stir(there.values, 1)
    examples = there.bench.examples("cy", "train")
    score, expected = (evaluate(x.bench, values, examples) for x in (kept, there))
    assert score.count == expected.count
    assert score.sums == pytest.approx(expected.sums, rel=1e-9)
    if there.bench.head:
        found, plain = (features(x.bench, values, examples) for x in (kept, there))
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)


def _counted(there: Site, kind: str, block: int = 0) -> list[int]:
    """How many rows a block of the model is given, call by call."""
    seen: list[int] = []
    watched = there.bench.model.model.get_submodule(f"{BLOCKS[kind]}.{block}")
    inner = watched.get_submodule("attention" if kind == "bert" else "ln_1" if kind == "gpt2"
                                else "self_attn")  # fmt: skip

    def count(module: nn.Module, args: Any, given: Any, out: Any) -> None:
        first = args[0] if args else given["hidden_states"]
        seen.append(first.shape[0])

    inner.register_forward_hook(count, with_kwargs=True)
    return seen


@pytest.mark.parametrize("kind", UPPER)
def test_each_row_runs_once(zoo: Zoo, kind: str) -> None:
    there = _kept(_upper(zoo, kind, train={"num_train_epochs": 3}))
    seen = _counted(there, kind)
    there.train(group_size=2)
    there.train(group_size=2, round=2)
    counts = [len(there.bench.examples(client, "train")) for client in there.clients]
    assert sum(seen) == sum(counts)
    assert len(seen) == sum(-(-count // KIN) for count in counts)


def test_a_rows_bits_do_not_depend_on_who_asked_first(zoo: Zoo) -> None:
    """So that a run that was stopped, and asks in another order, goes on to the same bits."""
    there = _upper(zoo, "bert", dtype="float32")
    values = {name: value.float() for name, value in stir(there.values, 1).items()}
    examples = with_kin(there.bench.examples("cy", "train"), 4)
    found = []
    for first in (examples[:1], examples[::-1], examples[3:7]):
        kept = _kept(there)
        evaluate(kept.bench, values, first)
        found.append(features(kept.bench, values, examples))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_memory_and_disk_hold_the_same_bits(zoo: Zoo, tmp_path: Path) -> None:
    there = _upper(zoo, "llama", dtype="float32")
    path = tmp_path / "new" / "prefix.sqlite"
    memory, _ = _kept(there).train(group_size=2)
    disk, _ = _kept(there, disk_shelf(path)).train(group_size=2)
    again = _kept(there, disk_shelf(path))
    seen = _counted(again, "llama")
    reread, _ = again.train(group_size=2)
    assert seen == [], "a second process computes nothing anew"
    for client, expected in memory.items():
        for found in (disk, reread):
            for name, value in expected.end.items():
                assert torch.equal(found[client].end[name], value)


@pytest.mark.parametrize("make", [lambda path: memory_shelf(), disk_shelf])
def test_a_shelf_gives_back_what_it_keeps(make: Callable[[Path], Shelf], tmp_path: Path) -> None:
    shelf = make(tmp_path / "x.sqlite")
    for place, dtype in enumerate((torch.float32, torch.bfloat16, torch.float64)):
        value = torch.randn(3, 5).to(dtype)
        shelf.keep(bytes([place]), value)
        found = shelf.find(bytes([place]))
        assert found is not None
        assert found.dtype == dtype
        assert torch.equal(found, value)
    assert shelf.find(b"none") is None


def test_another_model_finds_nothing(zoo: Zoo, tmp_path: Path) -> None:
    there = _kept(_upper(zoo, "bert"), disk_shelf(tmp_path / "x.sqlite"))
    assert there.bench.prefix
    row = there.bench.examples("ada", "train")[0]
    other = replace(there.bench.prefix, mark=b"another")
    assert other._keys(row) != there.bench.prefix._keys(row)
    longer = replace(row, ids=np.append(row.ids, 3), kin=None)
    assert other._keys(longer) != other._keys(replace(row, kin=None))


def test_kin_are_rows_of_about_one_length(zoo: Zoo) -> None:
    rows = [
        Example(np.arange(length), np.zeros(1, np.int64)) for length in (3, 9, 4, 8, 3, 7, 1, 2)
    ]
    found = with_kin(rows, 3)
    assert [row.ids is other.ids for row, other in zip(found, rows, strict=True)] == [True] * 8
    kin = {tuple(len(one) for one in row.kin.rows) for row in found if row.kin}
    assert kin == {(1, 2, 3), (3, 4, 7), (8, 9)}
    assert all(any(one is row for one in row.kin.rows) for row in found if row.kin)
    marks = {row.kin.mark for row in found if row.kin}
    assert len(marks) == 8, "the two rows of length 3 are told apart"


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        ("bert", {"target_modules": "all-linear"}),
        ("bert", {"method": "bitfit"}),
        ("roberta", {"target_modules": "all-linear"}),
        ("deberta", {"target_modules": ("query_proj",)}),
    ],
)
def test_what_trains_from_the_first_block_on_has_no_prefix(
    zoo: Zoo, kind: str, adapter: dict[str, Any]
) -> None:
    there = site(zoo, kind, adapter=adapter)
    rows = {client: there.bench.examples(client, "train") for client in there.clients}
    assert find_boundary(there.bench.model, probe(there.bench.objective, rows)) is None


@pytest.mark.parametrize("group_size", [1, 3])
def test_where_the_head_alone_trains_each_row_runs_once_through_all_blocks(
    zoo: Zoo, group_size: int
) -> None:
    there = site(zoo, "bert", adapter={"method": "none"}, train={"num_train_epochs": 3})
    plain, _ = there.train(group_size=group_size)
    kept = _kept(there)
    seen = _counted(kept, "bert", block=1)
    found, _ = kept.train(group_size=group_size)
    for client, expected in plain.items():
        assert distance(moved(found[client]), moved(expected)) < 1e-9
        assert found[client].loss == pytest.approx(expected.loss, rel=1e-10)
    assert sum(seen) == sum(len(there.bench.examples(client, "train")) for client in there.clients)


def test_the_model_is_as_it_was_after_a_failure(zoo: Zoo) -> None:
    there = _kept(_upper(zoo, "bert"))
    assert there.bench.prefix
    before = dict(vars(there.bench.model.model.get_submodule("backbone.encoder.layer.0")))
    with (
        pytest.raises(RuntimeError),
        there.bench.prefix.boundary.skipped(torch.zeros(1)),
    ):
        raise RuntimeError
    after = vars(there.bench.model.model.get_submodule("backbone.encoder.layer.0"))
    assert after.keys() == before.keys()


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "prefix.sqlite"
    path.write_bytes(b"no data base" * 400)
    with pytest.raises(
        RunError, match=r"prefix.sqlite cannot be used: .*remove the file, which is"
    ):
        disk_shelf(path).find(b"key")
