"""The SuperLink's objects on disk: as Flower's own store, and nothing large in memory."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
from flwr.app import Array
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory

from atoll.flower import shelf
from atoll.flower.options import MARK, SMALL
from atoll.flower.shelf import Shelf


def array(*, size: int = 3 * SMALL, shift: int = 0) -> Array:
    data = bytes((n + shift) % 251 for n in range(size))
    return Array(dtype="uint8", shape=(size,), stype="bytes", data=data)


def put(store: Shelf, one: Array) -> dict[str, bytes]:
    objects = {name: each.deflate() for name, each in get_all_nested_objects(one).items()}
    store.preregister(1, get_object_tree(one))
    for name, content in objects.items():
        store.put(name, content)
    return objects


def test_what_is_large_lies_on_disk_and_comes_back(tmp_path: Path) -> None:
    store = Shelf(tmp_path)
    objects = put(store, array())
    assert {name: store.get(name) for name in objects} == objects
    large = {name for name, content in objects.items() if len(content) > SMALL}
    assert {path.name for path in tmp_path.iterdir()} == large != set()
    assert sum(len(entry.content) for entry in store.store.values()) < SMALL
    put(store, array())  # another client sends the same
    assert {name: store.get(name) for name in objects} == objects


def test_what_nobody_holds_any_more_is_gone_from_the_disk(tmp_path: Path) -> None:
    store, one, other = Shelf(tmp_path), array(), array(size=9 * SMALL)
    put(store, one)
    put(store, other)
    store.delete(one.object_id)
    assert {path.name for path in tmp_path.iterdir()} <= set(get_all_nested_objects(other))
    assert store.get(one.object_id) is None
    store.delete_objects_in_run(1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_still_to_come_is_empty_and_what_was_not_announced_is_refused(
    tmp_path: Path,
) -> None:
    store, one = Shelf(tmp_path), array()
    store.preregister(1, get_object_tree(one))
    assert store.get(one.object_id) == b""
    strange = array(shift=1)
    (name, content), *_ = [(k, v.deflate()) for k, v in get_all_nested_objects(strange).items()]
    with pytest.raises(NoObjectInStoreError):
        store.put(name, content)
    with pytest.raises(ValueError, match="does not match content"):
        store.put(one.object_id, content)
    assert list(tmp_path.iterdir()) == []


def test_what_the_relay_lays_down_counts_where_it_was_announced(tmp_path: Path) -> None:
    store, one = Shelf(tmp_path / "shelf"), array()
    objects = {name: each.deflate() for name, each in get_all_nested_objects(one).items()}
    (large,) = (name for name, content in objects.items() if len(content) > SMALL)
    (tmp_path / "shelf" / large).write_bytes(objects[large])
    (tmp_path / "mine").write_bytes(b"mine")
    for name in (large, "../mine"):
        with pytest.raises(NoObjectInStoreError):
            store.put(name, MARK)
    assert (tmp_path / "mine").exists()
    store.preregister(1, get_object_tree(one))
    small = one.object_id
    with pytest.raises(NoObjectInStoreError):
        store.put(small, MARK)
    assert store.get(small) == b""
    store.put(large, MARK)
    store.put(small, objects[small])
    assert {name: store.get(name) for name in objects} == objects
    assert large not in store.preregister(1, get_object_tree(one))
    store.delete_objects_in_run(1)
    assert not (tmp_path / "shelf" / large).exists()


def test_many_may_put_the_same_at_once(tmp_path: Path) -> None:
    store, one = Shelf(tmp_path), array()
    threads = [Thread(target=put, args=(store, one)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    objects = {name: each.deflate() for name, each in get_all_nested_objects(one).items()}
    assert {name: store.get(name) for name in objects} == objects
    assert len(list(tmp_path.iterdir())) == 1


def test_flower_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = shelf.object_store_factory.InMemoryObjectStore
    monkeypatch.setattr(shelf.object_store_factory, "InMemoryObjectStore", own)
    shelf.keep_on_disk(tmp_path / "objects")
    assert isinstance(ObjectStoreFactory().store(), Shelf)
