"""Pages of the documentation: their blocks, and a reader who types what stands there."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.shells import ELSEWHERE, FOREIGN, Jobs, other_tool, understood

__all__ = ["ROOT", "Block", "Reader", "blocks", "commands", "inline", "pages"]

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_EXTRA = re.compile(r"(?:atoll|\.)\[(\w+)\]")


def pages() -> dict[str, Path]:
    """README.md and every page of the site, by its path in the repository."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(path.relative_to(ROOT)): path for path in found}


@dataclass(frozen=True)
class Block:
    """A fenced block: what follows its first fence, its text, and the line of that fence."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, from top to bottom."""
    page = path.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], page.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(page)
    ]


def inline(path: Path) -> list[str]:
    """What stands between single backticks outside of blocks."""
    page = _FENCE.sub("", path.read_text(encoding="utf-8"))
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page)


def commands(text: str) -> list[str]:
    """The commands of a block, one a line; a comment is none."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


@dataclass
class Reader:
    """Follows a page in the folder where the test stands.

    edits: what a reader changes in a recipe that was copied, and in Python that names a model.
    smaller: values after every `atoll run` and `atoll plan` of a packaged recipe.
    typed: what is typed in the place of a part of a command.
    said: what each command printed, the commands in order.
    """

    edits: Mapping[str, str] = field(default_factory=dict)
    smaller: tuple[str, ...] = ()
    typed: Mapping[str, str] = field(default_factory=dict)
    jobs: Jobs = field(default_factory=lambda: Jobs(Path.cwd()))
    said: dict[str, str] = field(default_factory=dict)

    def follow(self, path: Path) -> None:
        """Type all commands and run all Python of a page, and check its parts of experiments."""
        try:
            self._follow(path)
        finally:
            self.jobs.end()

    def _follow(self, path: Path) -> None:
        for block in blocks(path):
            where = f"{path.name}:{block.line}"
            if block.language == "bash":
                for command in commands(block.text):
                    self.types(command, where)
            elif block.language == "python":
                self.said[where] = self._python(block.text, where)
            elif block.language == "yaml":
                _load_policy(block.text) if _of_policy(block.text) else _load_part(block.text)

    def types(self, command: str, where: str) -> str:
        """What a command prints; it has to end well."""
        for before, after in self.typed.items():
            command = command.replace(before, after)
        before, _, after = command.rpartition(" | ")
        words, given = shlex.split(after, comments=True), shlex.split(before)
        assert given[:1] in ([], ["echo"]), f"{where}: only echo is piped: {command}"
        code, out = self._run(words, " ".join(given[1:]) or "reef")
        assert code == 0, f"{where}: {command}\n{out}"
        self.said[" ".join(words)] = out
        return out

    def _run(self, words: list[str], given: str) -> tuple[int, str]:
        name, *rest = words
        if name in FOREIGN:
            return other_tool(words)
        if rest[-1:] == ["&"]:
            self.jobs.start(rest[:-1])
            return 0, ""
        shell = {"wait": self.jobs.wait, "kill": self.jobs.kill}
        if name in shell:
            return shell[name](rest)
        known = {"atoll": self._atoll, "make": _make, "pip": _pip}
        assert name in known, f"the test does not know how to type {name}"
        return known[name](rest, given)

    def _atoll(self, words: list[str], given: str) -> tuple[int, str]:
        from atoll.cli.app import guarded
        from atoll.cli.packaged import names

        if words[0] in ("server", "client") and any(host in " ".join(words) for host in ELSEWHERE):
            understood(words)
            return 0, ""
        recipe = words[:1] in (["run"], ["plan"]) and words[1] in names()
        code, out = _captured(guarded, [*words, *(self.smaller if recipe else ())], given=given)
        if words[0] == "init" and code == 0:
            file = Path(f"{words[1]}.yaml")
            file.write_text(self._edited(file.read_text(encoding="utf-8")), encoding="utf-8")
        return code, out

    def _edited(self, text: str) -> str:
        for before, after in self.edits.items():
            text = text.replace(before, after)
        return text

    def _python(self, text: str, where: str) -> str:
        code = compile(self._edited(text), where, "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, {"__name__": "__main__"})
        return out.getvalue()


def _captured(call: object, words: list[str], *, given: str) -> tuple[int, str]:
    """The exit code of a command of ours, and what it printed; `given` is its standard input."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(f"{given}\n".encode()), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call(words)  # type: ignore[operator]
    finally:
        sys.stdin = before
    return code, out.getvalue() if code == 0 else err.getvalue()


def _make(words: list[str], given: str) -> tuple[int, str]:
    """What `make` would do: it installs, which is no matter of a test."""
    done = subprocess.run(
        ["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def _pip(words: list[str], given: str) -> tuple[int, str]:
    """Whether what is to be installed is what the project declares, or asks for in an error."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if words[0] == "wheel" or "--no-index" in words:
        return 0, ""  # gigabytes; what they install is what `pip install .` does
    assert words[0] == "install"
    asked = " ".join(["pip", *words])
    errors = (ROOT / "atoll" / "models" / "builtin.py").read_text(encoding="utf-8")
    for word in words[1:]:
        extra = _EXTRA.fullmatch(word)
        there = extra is not None and extra[1] in project["optional-dependencies"]
        if not (word == "." or there or asked in errors):
            return 1, f"{word} is neither the project nor an extra of it"
    return 0, ""


def _of_policy(text: str) -> bool:
    return text.startswith("# policy.yaml\n")


def _load_policy(text: str) -> None:
    """Write a site's policy down, and load it."""
    from atoll.policy import load_policy

    file = Path("policy.yaml")
    file.write_text(text, encoding="utf-8")
    load_policy(file)


def _load_part(text: str) -> None:
    """Load a part of an experiment file, on a model and data that nobody opens."""
    from atoll.config import load, resolve
    from atoll.experiment.checks import PLACES

    needed = {"model": "model: {name_or_path: m}\n", "data": "data: {path: d}\n"}
    missing = [line for name, line in needed.items() if not re.search(rf"^{name}:", text, re.M)]
    file = Path("part.yaml")
    file.write_text("".join(missing) + text, encoding="utf-8")
    loaded = load(file)
    resolve(loaded.experiment.federation.runtime, package=PLACES, where=loaded.where)
    file.unlink()
