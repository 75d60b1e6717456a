"""Loading a model without bars and notes of the libraries that do it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet(*, hushed: bool = False) -> Iterator[None]:
    """Loading bars and notes on newly made heads are noise here; errors still come through.

    hushed: also bars that heed no setting, except for a person at a terminal: a GGUF file's takes
        most of a minute.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    aside = contextlib.redirect_stderr(io.StringIO())
    try:
        with aside if hushed and not sys.stderr.isatty() else contextlib.nullcontext():
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
