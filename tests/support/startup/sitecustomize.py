"""Read by every Python that a test starts, before anything else.

What they run is what a user has installed. torchao is there for tests of 8 bits alone, and loading
it takes transformers a second or two of every process.
"""

from __future__ import annotations

import sys

sys.modules["torchao"] = None  # type: ignore[assignment]
