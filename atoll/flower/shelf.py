"""What a SuperLink or a SuperNode holds for others, on disk instead of in memory.

Flower would keep it in a database, whose pages come into memory beside what they hold. The relay
beside it takes what is large from there, and puts it there, and not over HTTP.
"""

from __future__ import annotations

from pathlib import Path
from threading import get_ident
from typing import Any

from flwr.supercore.object_store import NoObjectInStoreError, object_store_factory
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

from atoll.flower.options import MARK, SMALL

__all__ = ["Shelf", "keep_on_disk"]


class Shelf(InMemoryObjectStore):  # type: ignore[misc]
    """Flower's store, whose large objects are files of `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, object_id: str, object_content: bytes) -> None:
        """See Flower's, which looks whether the name is of the content.

        `MARK` in its place: the relay has put the content on the shelf, and has made the name.
        """
        if object_content == MARK:
            self._laid_down(object_id)
            return
        super().put(object_id, object_content)
        path = self._folder / object_id
        if len(object_content) <= SMALL or path.exists():
            return
        partial = path.with_name(f"{object_id}-{get_ident()}")
        partial.write_bytes(object_content)
        with self.lock_store:
            if object_id in self.store:
                partial.replace(path)
                # Nobody asks for the content but `get`.
                self.store[object_id].content = MARK
            else:
                partial.unlink()

    def _laid_down(self, object_id: str) -> None:
        with self.lock_store:
            entry = self.store.get(object_id)
            # A name that was announced is a digest, and leads to no other folder.
            if entry is None or not (self._folder / object_id).is_file():
                raise NoObjectInStoreError(f"object {object_id} is not on the shelf")
            entry.content, entry.is_available = MARK, True

    def get(self, object_id: str) -> bytes | None:
        """The content; empty where it is still to come."""
        with self.lock_store:
            content: bytes | None = super().get(object_id)
            if content != MARK:
                return content
            opened = (self._folder / object_id).open("rb", buffering=0)
        with opened:
            return opened.readall()

    def delete(self, object_id: str) -> None:
        """Forget an object, and what only it holds."""
        with self.lock_store:
            super().delete(object_id)
            if object_id not in self.store:
                (self._folder / object_id).unlink(missing_ok=True)


def keep_on_disk(folder: Path) -> None:
    """Have the SuperLink or the SuperNode of this process keep its objects in a folder."""

    def store() -> Any:
        return Shelf(folder)

    vars(object_store_factory)["InMemoryObjectStore"] = store
