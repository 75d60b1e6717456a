"""Errors become sentences and exit codes."""

from __future__ import annotations

import errno

import pytest
from click import UsageError

from atoll.cli import app as front
from atoll.errors import AtollError, CompositionError, QuorumError


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def app(arguments: list[str], *, prog_name: str, standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(front, "app", app)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (AtollError("a"), 1, "Error: a\n"),
        (CompositionError("two\nlines"), 2, "Error: two\nlines\n"),
        (QuorumError("few"), 7, "Error: few\n"),
        (UsageError("no such thing"), 2, "Error: no such thing\nSee `atoll --help`.\n"),
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "Error: this should not have happened: ZeroDivisionError: by zero\n"
            "run `atoll --traceback ...` to see where, and please report it\n",
        ),
    ],
)
def test_what_goes_wrong_becomes_a_sentence_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    _raising(monkeypatch, error)
    assert front.guarded(["run"]) == code
    assert capsys.readouterr() == ("", message)


def test_traceback_lets_the_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(monkeypatch, AtollError("a"))
    for words in (["--traceback", "run"], ["run", "f.yaml", "--traceback"]):
        with pytest.raises(AtollError):
            front.guarded(words)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from atoll import __version__

    assert front.guarded(["--version"]) == 0
    assert capsys.readouterr().out == f"atoll {__version__}\n"


def test_an_unknown_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.guarded(["trian"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert "No such command 'trian'" in found.err
    assert front.guarded(["rnu"]) == 2
    near = "Error: No such command 'rnu'. Did you mean 'run'?\nSee `atoll --help`.\n"
    assert capsys.readouterr().err == near
    assert found.err.endswith("See `atoll --help`.\n")


def test_help_without_a_command_and_by_its_short_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts: list[str] = []
    for words in ([], ["-h"], ["--help"]):
        assert front.guarded(words) == 0
        texts.append(capsys.readouterr().out)
    assert len({text.strip() for text in texts}) == 1
    assert texts[0].startswith("Usage: ")
    assert front.guarded(["run", "-h"]) == 0
    assert "FILE|RECIPE" in capsys.readouterr().out


def test_a_full_disk_behind_stdout_is_code_6(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(front, "silence", lambda: None)
    _raising(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    assert front.guarded(["schema"]) == 6
    assert capfd.readouterr().err == "Error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")],
)
def test_memory_that_ran_out_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raising(monkeypatch, error)
    assert front.guarded(["schema"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: not enough memory; lower train.group_size, a batch size or ")


def test_a_reader_who_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "silence", lambda: None)
    _raising(monkeypatch, BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert front.guarded(["schema"]) == 0
