"""Flower's imports are loud; only warnings of ours are errors."""

from __future__ import annotations

import tests.support.front  # noqa: F401
