"""The command line is imported in this process."""

from __future__ import annotations

import tests.support.front  # noqa: F401
