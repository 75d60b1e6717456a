"""Where a model's name leads, and reading it from there: hub id, local directory, `builtin:`."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from atoll.errors import ModelError
from atoll.models.builtin import find_builtin
from atoll.models.eight_bits import check_rounded, eight_bit_options
from atoll.models.gguf import check_gguf, made_plain
from atoll.models.misfit import misfit, reason_of
from atoll.models.quiet import quiet

__all__ = ["Source", "find_file", "fingerprint", "load_auto", "locate"]


@dataclass(frozen=True)
class Source:
    """What to load from, and the name that an adapter states as its base.

    gguf_file: the file of it that holds the model, where that is one of GGUF.
    differs: how it differs from what is known under its name, in a sentence.
    load_in_8bit: whether the weights of its linear layers are rounded when they are loaded.
    """

    path: str
    hub_id: str
    revision: str | None = None
    trust_remote_code: bool = False
    gguf_file: str | None = None
    differs: str = ""
    load_in_8bit: bool = False

    @property
    def folder(self) -> Path | None:
        """The local directory, if it is one."""
        return Path(self.path) if Path(self.path).is_dir() else None


def locate(
    name_or_path: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    gguf_file: str | None = None,
) -> Source:
    """Find a model.

    Raises:
        ModelError: for an unknown builtin, or a path that is not there.
    """
    if gguf_file is not None:
        check_gguf()
    if name_or_path.startswith("builtin:"):
        if gguf_file is not None:
            raise ModelError(f"model.gguf_file is {gguf_file}, but {name_or_path} has no choice")
        found = find_builtin(name_or_path, _from_gguf)
        return Source(str(found.folder), found.hub_id, differs=found.differs)
    looks_local = name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        _check_folder(path, name_or_path, gguf_file)
        # An adapter states its base, and is read from other folders than this one.
        whole = str(path.absolute())
        return Source(whole, whole, revision, trust_remote_code, gguf_file)
    if path.is_file() and path.suffix == ".gguf":
        raise ModelError(
            f"{name_or_path} is a file; set model.name_or_path to its folder ({path.parent}) and "
            f"model.gguf_file to {path.name}"
        )
    if looks_local:
        raise ModelError(f"model folder {name_or_path} does not exist")
    return Source(name_or_path, name_or_path, revision, trust_remote_code, gguf_file)


def _check_folder(path: Path, named: str, gguf_file: str | None) -> None:
    """Refuse a folder without a model in it."""
    files = sorted(item.name for item in path.glob("*.gguf"))
    if gguf_file is not None:
        if not (path / gguf_file).is_file():
            there = f"; there is {', '.join(files)}" if files else ""
            raise ModelError(f"model folder {named} holds no {gguf_file}{there}")
    elif not (path / "config.json").is_file():
        hint = f", or set model.gguf_file to {files[0]}" if files else ""
        raise ModelError(
            f"model folder {named} holds no config.json; "
            f"give the directory that save_pretrained wrote{hint}"
        )


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
    if source.gguf_file is not None and auto_class != "AutoImageProcessor":
        options = {**options, "gguf_file": source.gguf_file}
    if source.load_in_8bit and auto_class.startswith("AutoModel"):
        options = {**options, **eight_bit_options()}
    with quiet(hushed="gguf_file" in options):
        try:
            loaded = auto.from_pretrained(source.path, **where, **options)
            if "quantization_config" in options:
                # With output_loading_info it comes with what is told of its loading.
                check_rounded(loaded[0] if type(loaded) is tuple else loaded, source.hub_id)
            return loaded if "gguf_file" not in options else _plain(loaded)
        # A config.json of another shape than an object is a TypeError or AttributeError there.
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
                ImportError, SafetensorError, struct.error) as error:  # fmt: skip
            reason = reason_of(error)
            if "ignore_mismatched_sizes" in str(error):
                asked = {**options, "ignore_mismatched_sizes": True, "output_loading_info": True}
                _, found = auto.from_pretrained(source.path, **where, **asked)
                reason = misfit(found["mismatched_keys"])
            raise ModelError(
                f"model {source.hub_id} cannot be loaded as {auto_class}: {reason}; "
                f"{_advice(auto_class, source, error)}"
            ) from error


def _advice(auto_class: str, source: Source, error: Exception) -> str:
    if "trust_remote_code" in str(error) and not source.trust_remote_code:
        return "read it, and set model.trust_remote_code to true if you trust it"
    check = "check its files" if source.folder else "check the name and the login"
    if "Image" not in auto_class:
        check += ", or use builtin:minilm, which needs no network"
    return check


def _from_gguf(auto_class: str, file: Path) -> Any:
    source = Source(str(file.parent), file.name, gguf_file=file.name)
    # Sums of few bits by scales of 16 want all of float32.
    options = {} if auto_class == "AutoTokenizer" else {"dtype": torch.float32}
    return load_auto(auto_class, source, options=options)


def _plain(loaded: Any) -> Any:
    """A model of a GGUF file is an ordinary one by now; with it may come what was found in it."""
    model, *rest = loaded if isinstance(loaded, tuple) else (loaded,)
    if isinstance(model, nn.Module):
        made_plain(model)
    return (model, *rest) if rest else model


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


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of the frozen weights; the same on every machine."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        for part in _parts(value):
            raw = part.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()


def _parts(value: Tensor) -> list[Tensor]:
    """A quantised weight is a tensor made of others: whole numbers and scales."""
    if not is_traceable_wrapper_subclass(value):
        return [value]
    names, _ = value.__tensor_flatten__()
    return [part for name in names for part in _parts(vars(value)[name])]
