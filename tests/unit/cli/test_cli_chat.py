"""`atoll chat`: through a pipe, and at a terminal of its own."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from atoll.cli.app import guarded
from atoll.trained.load_run import load_run
from atoll.trained.predict import generate
from tests.support.finished import finish

if TYPE_CHECKING:
    from tests.support.models import Zoo

pytestmark = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")

LONGEST = 8_000  # tokens: some seconds of an answer
ATOLL = [sys.executable, "-m", "atoll"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TERM": "xterm"}
# A terminal of its own, so that Ctrl-C reaches the command and nobody else.
SEATED = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)

# A terminal takes these for orders; the tiny model writes them often, and rich writes others.
ORDERS = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f\x80-\x9f]")


@pytest.fixture(scope="module")
def run(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a language model that reads very long rows, and whose base never ends a text."""
    root = tmp_path_factory.mktemp("origin")
    model = AutoModelForCausalLM.from_pretrained(zoo("llama"))
    model.config.max_position_embeddings = LONGEST
    model.lm_head.weight.data[256] = 0.0
    model.save_pretrained(root / "base")
    tokenizer = AutoTokenizer.from_pretrained(zoo("llama"))
    assert tokenizer.eos_token_id == 256
    tokenizer.model_max_length = LONGEST
    tokenizer.save_pretrained(root / "base")
    return finish(root, zoo, "llama", model={"name_or_path": str(root / "base")})


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """One JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Piped = Callable[..., Done]


@pytest.fixture
def piped(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Piped:
    """`atoll chat RUN WORDS` with a text on standard input."""

    def typed(given: str | bytes, *words: str) -> Done:
        content = given if isinstance(given, bytes) else given.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code = guarded(["chat", str(run), *words])
        return Done(code, *capsys.readouterr())

    return typed


def test_a_pipe_gets_one_answer_a_line(run: Path, piped: Piped) -> None:
    done = piped("reef\n\ntide\n/reset\nreef\n", "--max-new-tokens", "9", "--format", "json")
    assert (done.code, done.err) == (0, "")
    assert [line["turn"] for line in done.lines] == [1, 2, 3]
    assert [line["asked"] for line in done.lines] == ["reef", "tide", "reef"]
    assert [line["complete"] for line in done.lines] == [{"trained": False}] * 3
    first, second, again = (line["answers"]["trained"] for line in done.lines)
    assert first == again
    trained = load_run(run, note=lambda text: None)
    asked = [{"prompt": "reef"}, {"prompt": f"reef{first}\n\ntide"}]
    assert list(generate(trained, asked, max_new_tokens=9)) == [first, second]


def test_both_answer_one_conversation(piped: Piped) -> None:
    words = ("--compare", "--max-new-tokens", "6", "--temperature", "0.8", "--seed", "3")
    lines = piped("reef\ntide\n", *words, "--format", "json").lines
    assert all(line["answers"].keys() == {"trained", "base"} for line in lines)
    assert all(line["answers"]["trained"] != line["answers"]["base"] for line in lines)
    texts = piped("reef\ntide\n", *words)
    assert texts.out.startswith(f"trained: {lines[0]['answers']['trained']}\nbase: ")
    for name, alone in (("trained", ()), ("base", ("--base",))):
        one = piped("reef\n", *words[1:], *alone, "--format", "json")
        assert one.lines[0]["answers"] == {name: lines[0]["answers"][name]}
    other = piped("reef\n", *words[:-1], "4", "--format", "json")
    assert other.lines[0]["answers"] != lines[0]["answers"]


def test_a_long_conversation_forgets_its_beginning_if_it_may(piped: Piped) -> None:
    long = "x" * (LONGEST * 2 // 3) + "\n"
    done = piped(long * 2, "--max-new-tokens", "2", "--format", "json")
    assert (done.code, len(done.lines)) == (3, 1)
    assert "/reset begins a new one, and with --drop-oldest" in done.err
    done = piped(long * 2, "--max-new-tokens", "2", "--format", "json", "--drop-oldest")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0]["answers"] == done.lines[1]["answers"]


WRONG: Mapping[str, tuple[list[str], str | bytes, int, str]] = {
    "two ways at once": (["--compare", "--base"], "", 2, "leave out --base"),
    "a seed of nothing": (["--seed", "1"], "", 2, "set --temperature"),
    "a system message in plain text": (["--system", "x"], "reef\n", 3, "no place for a system"),
    "no such command": ([], "/nope\n", 3, "there is no command /nope; /reset begins anew"),
    "no text": ([], b"reef\n\xff\xfe\n", 3, "stdin:2: not UTF-8 text (byte 0)"),
    "a long message": ([], "x" * LONGEST, 3, f"this message is {LONGEST} tokens long"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be(name: str, piped: Piped) -> None:
    words, text, code, said = WRONG[name]
    done = piped(text, "--max-new-tokens", "2", *words)
    assert done.code == code
    assert said in done.err


def test_a_slash_may_begin_a_message(piped: Piped) -> None:
    done = piped("/usr/bin\n / x\n/quit now\nreef\n", "--max-new-tokens", "2", "--format=json")
    assert [line["asked"] for line in done.lines] == ["/usr/bin", " / x"]
    assert done.code == 0


class Terminal:
    """A command at a terminal: what it wrote, and typing."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.text = ""

    def until(self, pattern: str, *, typing: str = "") -> str:
        """Wait for it in what was not yet read; returns all up to it.

        typing: every other second, for a key that may come too early to be heard.
        """
        end, again = time.monotonic() + 240, 0.0
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.text!r}"
            if typing and time.monotonic() > again:
                self.type(typing)
                again = time.monotonic() + 2
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # The other side is closed.
                    assert re.search(pattern, self.text, re.DOTALL), self.text
        before, self.text = self.text[: found.end()], self.text[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())


@contextmanager
def terminal(*words: str, columns: int = 80) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SEATED, *ATOLL, "chat", *words],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**ENVIRONMENT, "COLUMNS": str(columns)},
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(process, master)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_talk_at_a_terminal(run: Path) -> None:
    """Ctrl-C stops an answer, and at the prompt only says how to leave; Ctrl-D leaves."""
    with terminal(str(run), "--base", "--max-new-tokens", str(LONGEST)) as seat:
        seat.until(r"base: .*/run\. /reset begins anew.*Ctrl-C stops an answer\.")
        seat.until("> ")
        # Between its prompt and its first look at the keys, readline does not hear Ctrl-C.
        seat.until(r"\(Ctrl-D leaves\).*> ", typing="\x03")
        seat.type("/nope\n")
        seat.until("there is no command /nope.*> ")
        seat.type("reef\n")
        seat.until(r"reef\r\n.{20}")
        seat.type("\x03")
        seat.until(r"\(stopped\).*> ")
        seat.type("/system be kind\n")
        seat.until("no place for a system message.*> ")
        seat.type("/reset\n")
        seat.until("> ")
        seat.type("\x04")
        seat.process.wait(60)
        assert seat.process.returncode == 0


def test_two_answers_side_by_side_where_there_is_room(run: Path) -> None:
    words = (str(run), "--compare", "--max-new-tokens", "8")
    with terminal(*words, columns=140) as seat:
        seat.until("> ")
        seat.type("reef\n")
        shown = seat.until(r"cut at the longest answer; --max-new-tokens sets it\).*> ")
        assert re.search(r"trained {20,}\S* *\S*base {20,}", shown)
        assert not ORDERS.search(shown)
        seat.type("/quit\n")
    with terminal(*words, columns=60) as seat:
        seat.until("> ")
        seat.type("reef\n")
        shown = seat.until(r"trained: .*\nbase: .*\(trained and base: cut at.*> ")
        assert not ORDERS.search(shown)
        seat.type("/quit\n")
