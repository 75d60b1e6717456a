"""Commands of the pages are typed in this process."""

from __future__ import annotations

import tests.support.front  # noqa: F401
