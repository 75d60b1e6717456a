"""Loading a model without bars and notes of the libraries that do it."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hush", "quiet"]


def hush() -> None:
    """Before libraries load: where torchao is installed, peft loads it, and it tells of kernels
    for other machines."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def quiet(*, hushed: bool = False) -> Iterator[None]:
    """Loading bars and notes on newly made heads are noise here; errors still come through.

    hushed: also bars that heed no setting, except for a person at a terminal: a GGUF file's takes
        most of a minute.
    """
    from transformers.utils import logging as speech

    level, bars = speech.get_verbosity(), speech.is_progress_bar_enabled()
    speech.set_verbosity_error()
    speech.disable_progress_bar()
    aside = contextlib.redirect_stderr(io.StringIO())
    try:
        with aside if hushed and not sys.stderr.isatty() else contextlib.nullcontext():
            yield
    finally:
        speech.set_verbosity(level)
        if bars:
            speech.enable_progress_bar()
