"""GGUF files: models with weights of few bits, made plain when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.errors import ModelError
from atoll.models.quiet import quiet

__all__ = ["Load", "check_gguf", "made_plain", "plain_folder"]

Load = Callable[[str, Path], Any]
"""(one of transformers' Auto classes, a GGUF file) to what the file holds of it."""


def check_gguf() -> None:
    """Refuse to read a GGUF file without the package that does.

    Raises:
        ModelError: with the command that installs it.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("a GGUF file is read with the package gguf; pip install gguf")


def made_plain(model: Any) -> Any:
    """The model without the marks of its quantiser: its weights are plain since they were read."""
    model.hf_quantizer, model.is_quantized = None, False
    settings = vars(model.config)
    settings.pop("quantization_config", None)
    return model


def plain_folder(file: Path, load: Load) -> Path:
    """The model of a GGUF file as an ordinary folder in the user's cache, made when it is missing.

    Reading the file takes most of a minute, the folder seconds. Its name is the file's SHA-256.

    Raises:
        ModelError: when the file cannot be read, or the folder not be written.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atoll" / "models"
    folder = cache / f"{file.stem}-{digest[:16]}"
    if not (folder / "config.json").is_file():
        check_gguf()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _write(file, folder, load)
        except OSError as error:
            raise ModelError(
                f"the weights of {file.name} cannot be written to {cache} ({error}); free some "
                "space there, or set XDG_CACHE_HOME to another folder"
            ) from error
    return folder


def _write(file: Path, folder: Path, load: Load) -> None:
    """Write beside the folder and put it there whole; another process may have been first."""
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        model, tokenizer = load("AutoModelForCausalLM", file), load("AutoTokenizer", file)
        with quiet():
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        with contextlib.suppress(FileExistsError):
            partial.rename(folder)
        if not (folder / "config.json").is_file():
            raise OSError(f"{folder} is in the way")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
