"""Whether this machine and installation can run experiments: quick looks, and what to do."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from atoll.errors import AtollError, RunError
from atoll.plan.machine import Machine, disk_of
from atoll.words import counted

__all__ = [
    "Finding",
    "disk",
    "exit_code",
    "memory",
    "packages",
    "python",
    "threads",
]

GIB = 2**30
SMALL, TIGHT = GIB // 2, 2 * GIB
"""Free memory in which not even the tour fits, and in which little else does."""
FULL, FILLING = GIB // 10, GIB
"""The same of a disk."""


@dataclass(frozen=True)
class Finding:
    """One look: what was found, and what to do where that is not well.

    code: the exit code of the error that a problem would become in a run.
    """

    check: str
    state: Literal["ok", "warning", "problem"]
    found: str
    do: str = ""
    code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


def exit_code(findings: Sequence[Finding]) -> int:
    """0, or that of the first problem."""
    return next((one.code for one in findings if one.state == "problem"), 0)


def python(package: str = "atoll") -> Finding:
    """Python's version against the one that a package needs."""
    here = platform.python_version()
    try:
        needed = metadata.metadata(package)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return _not_installed("python", package)
    if needed and not SpecifierSet(needed).contains(here, prereleases=True):
        do = f"install Python {needed}, and make a new environment with it"
        return Finding("python", "problem", f"{here}; {package} needs {needed}", do,
                       AtollError.exit_code)  # fmt: skip
    return Finding("python", "ok", here)


def packages(package: str = "atoll") -> Iterator[Finding]:
    """What a package needs, and the versions that are here."""
    try:
        needs = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        yield _not_installed("packages", package)
        return
    fine = []
    for needed in map(Requirement, needs):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        here = _version(needed.name)
        if here is not None and needed.specifier.contains(here, prereleases=True):
            fine.append(f"{needed.name} {here}")
            continue
        what = "is missing" if here is None else f"is {here}; {package} needs {needed.specifier}"
        do = f"pip install '{needed.name}{needed.specifier}'"
        yield Finding("packages", "problem", f"{needed.name} {what}", do, AtollError.exit_code)
    if fine:
        yield Finding("packages", "ok", ", ".join(fine))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _not_installed(check: str, package: str) -> Finding:
    what = f"{package} runs from a folder and is not installed, so that versions are not known"
    return Finding(check, "warning", what, "pip install -e . in that folder")


def threads(machine: Machine, used: int) -> Finding:
    """Threads against the cores that there are, and what else wants them."""
    cores = machine.cores if machine.quota is None else min(machine.cores, machine.quota)
    found = f"{counted(used, 'thread')} on {counted(machine.cores, 'core')}"
    if machine.quota is not None:
        found += f", of which the container may use {machine.quota:g}"
    found += f"; load {machine.load:.1f}"
    if used > max(cores, 1):
        do = f"set OMP_NUM_THREADS={max(int(cores), 1)}: threads that wait for a core cost more"
        return Finding("threads", "warning", found, do)
    if machine.load > machine.cores:
        do = "others use the cores: runs take longer than they would, and plans see that too"
        return Finding("threads", "warning", found, do)
    return Finding("threads", "ok", found)


def memory(machine: Machine) -> Finding:
    """Free memory, within the container's limit."""
    found = f"{machine.free / GIB:.1f} of {machine.memory / GIB:.1f} GiB free"
    if machine.limit is not None:
        found += f" below the container's limit of {machine.limit / GIB:.1f} GiB"
    do = "close what else is running, or raise the limit; `atoll plan FILE` says what a run takes"
    if machine.free < SMALL:
        return Finding("memory", "problem", found, do, AtollError.exit_code)
    return Finding("memory", "warning" if machine.free < TIGHT else "ok", found,
                   do if machine.free < TIGHT else "")  # fmt: skip


def disk(output: Path) -> Finding:
    """Free space where runs are to be written, and whether they may be."""
    here = disk_of(output)
    found = f"{here.free / GIB:.1f} GiB free in {here.folder}"
    if not here.writable:
        found, do = f"you may not write in {here.folder}", "set output_dir to another place"
        return Finding("disk", "problem", found, do, RunError.exit_code)
    do = "free some space, or set output_dir to another disk"
    if here.free < FULL:
        return Finding("disk", "problem", found, do, RunError.exit_code)
    if here.free < FILLING:
        return Finding("disk", "warning", found, do)
    return Finding("disk", "ok", found)
