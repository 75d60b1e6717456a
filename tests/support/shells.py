"""Commands of a page beside ours: in the background, elsewhere, and of other tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

__all__ = ["ELSEWHERE", "FOREIGN", "Jobs", "other_tool", "understood"]

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("fl.example.org", "0.0.0.0")
"""Whoever names one of these stands at another machine: the command is parsed, and not run."""
FOREIGN = ("docker", "helm", "journalctl", "kubectl", "sudo")
PATIENCE = 900.0
"""Seconds after which a test that hangs is ended; nothing is proved by them."""


@dataclass
class Jobs:
    """What runs in the background of a reader's shell, as `%1`, `%2`, …; each has a log."""

    folder: Path
    _jobs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, words: list[str]) -> None:
        """`atoll … &`."""
        with self._log(len(self._jobs) + 1).open("wb") as log:
            made = subprocess.Popen(
                [sys.executable, "-m", "atoll", *words],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}",
                     "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
        self._jobs.append(made)

    def wait(self, words: list[str]) -> tuple[int, str]:
        """`wait %N`, for one of them; all words of all of them, where it went wrong."""
        (name,) = words
        job = self._named(name)
        try:
            code = job.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = -1
        if code == 0:
            return 0, self.said(int(name[1:]))
        self.end()
        return code, "\n".join(self.said(n + 1) for n in range(len(self._jobs)))

    def kill(self, words: list[str]) -> tuple[int, str]:
        """`kill %N …`; the next command begins when they have gone."""
        for name in words:
            self._named(name).terminate()
        for name in words:
            self._named(name).wait(PATIENCE)
        if all(job.poll() is not None for job in self._jobs):
            # A shell counts from 1 again.
            self._jobs.clear()
        return 0, ""

    def end(self) -> None:
        """Leave nothing behind."""
        for job in self._jobs:
            job.kill()
            job.wait()

    def said(self, number: int) -> str:
        """What a job has said so far."""
        return self._log(number).read_text(encoding="utf-8", errors="replace")

    def _log(self, number: int) -> Path:
        return self.folder / f"job-{number}.log"

    def _named(self, name: str) -> subprocess.Popen[bytes]:
        assert re.fullmatch(r"%\d+", name), f"{name} is no job; write %1"
        return self._jobs[int(name[1:]) - 1]


def understood(words: list[str]) -> None:
    """A command line of ours, parsed as it would be, and not run."""
    import typer

    from atoll.cli.app import app

    command = typer.main.get_command(app)
    command.commands[words[0]].make_context(words[0], list(words[1:]))  # type: ignore[attr-defined]


def other_tool(words: list[str]) -> tuple[int, str]:
    """Another tool: the files of ours that it names are there, and kubectl is asked."""
    ours = [word for word in words if word.startswith("deploy/")]
    missing = [word for word in ours if not (ROOT / word).exists()]
    if missing:
        return 1, f"{missing[0]} is not there"
    if words[0] == "kubectl" and shutil.which("kubectl"):
        dry = [*words, "--dry-run=client", "--output=yaml"]
        done = subprocess.run(dry, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    if words[0] == "helm":
        return _helm(words[1:])
    return 0, ""


def _helm(words: list[str]) -> tuple[int, str]:
    """`helm install NAME CHART --set A=B …`, by Helm's own code, as far as it needs no cluster."""
    helm = pytest.importorskip("helm_python")
    assert words[0] == "install"
    values: dict[str, object] = {}
    for option, text in zip(words[3::2], words[4::2], strict=True):
        name, _, value = text.partition("=")
        assert option in ("--set", "--set-file"), option
        part, _, key = name.partition(".")
        given = Path(value).read_text(encoding="utf-8") if option == "--set-file" else value
        section = values.setdefault(part, {})
        assert isinstance(section, dict)
        section[key] = True if given == "true" else given
    with helm.Chart.load(str(ROOT / words[2])) as chart:
        chart.validate_schema(values)
        return 0, "\n".join(chart.render(values, name=words[1], namespace="default").values())
