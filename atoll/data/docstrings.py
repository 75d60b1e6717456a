"""`builtin:docstrings`: real text on every machine, from Python's own standard library.

A row is the docstring of a function or class; its label is the library that it stands in.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from atoll.data.tables import Table
from atoll.errors import DataError

__all__ = ["LIBRARIES", "docstrings"]

LIBRARIES = (
    "asyncio",
    "email",
    "importlib",
    "logging",
    "xml",
    "_pydecimal",
    "multiprocessing",
    "unittest",
    "http",
    "urllib",
    "tarfile",
    "inspect",
    "ipaddress",
    "mailbox",
    "_pyio",
    "typing",
    "pydoc",
    "threading",
    "doctest",
    "pathlib",
)
LONGER_THAN = 40
CUT_AT = 300
TEST_SHARE = 0.15


@functools.cache
def docstrings() -> tuple[Table, Table]:
    """(train, test): the same rows on every machine with the same Python."""
    names = {"label": LIBRARIES}
    train = Table("builtin:docstrings", [], classes=names)
    test = Table("builtin:docstrings (test)", [], classes=names)
    for library in LIBRARIES:
        for text in dict.fromkeys(_texts(library)):
            part = test if _in_test(text) else train
            part.rows.append({"text": text, "label": library})
    return train, test


def _texts(library: str) -> Iterator[str]:
    for path in _sources(library):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                doc = ast.get_docstring(node) or ""
                if len(doc) > LONGER_THAN:
                    yield " ".join(doc.split())[:CUT_AT]


def _sources(library: str) -> list[Path]:
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise DataError(
            f"builtin:docstrings: the source of Python's `{library}` is not on this machine; "
            "use a Python with its standard library as files, or another data set."
        )
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)]
    root = Path(spec.origin).parent
    # unittest's own tests stand inside it in 3.11 and no longer in 3.12.
    return [
        path for path in sorted(root.rglob("*.py")) if "test" not in path.relative_to(root).parts
    ]


def _in_test(text: str) -> bool:
    # By content: a text that two libraries share falls on one side, in every version of Python.
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "little") < TEST_SHARE * 2**32
