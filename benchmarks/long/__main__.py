"""The tests that take minutes, run and written down: `python -m benchmarks.long`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.common import write_result

ROOT = Path(__file__).parents[2]
FAULTS = ("failure", "error", "skipped")


def main() -> None:
    """Run tests that are marked as long; the exit code is pytest's."""
    parser = argparse.ArgumentParser("benchmarks.long")
    parser.add_argument("name", help="of the result")
    parser.add_argument(
        "tests", nargs="*", default=["tests"], help="files; all where none is named"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "long", "-o", "junit_logging=system-out",
             f"--junitxml={report}", *options.tests], cwd=ROOT, check=False,
        )  # fmt: skip
        rows = [_row(case) for case in ElementTree.parse(report).iter("testcase")]
    path = write_result(Path(__file__).parent, options.name, {"tests": rows})
    print(f"written to {path}")
    sys.exit(done.returncode)


def _row(case: ElementTree.Element) -> dict[str, Any]:
    """What became of one test, and what it printed."""
    fault = next((kind for kind in FAULTS if case.find(kind) is not None), None)
    said = case.findtext("system-out") or ""
    lines = [line for line in said.splitlines() if line and not line.startswith("---")]
    return {
        "test": f"{case.get('classname')}.{case.get('name')}",
        "outcome": fault or "passed",
        "seconds": round(float(case.get("time", 0)), 1),
        "printed": lines,
    }


if __name__ == "__main__":
    main()
