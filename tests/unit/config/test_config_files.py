"""Files that are no experiment, word for word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.config import load
from atoll.errors import ConfigError

Refusal = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: the file is empty; it needs at least model.name_or_path and data.path"),
        ("# no\n", "f.yaml: the file is empty; it needs at least model.name_or_path and data.path"),
        ("- a", 'f.yaml:1: the file is ["a"]; expected sections: model, data, adapter, ...'),
        ("\na", 'f.yaml:2: the file is "a"; expected sections: model, data, adapter, ...'),
        ("a: 1\nb: c: d", "f.yaml:2: broken YAML: mapping values are not allowed here"),
        (
            "a: [1",
            "f.yaml:1: broken YAML: while parsing a flow sequence, expected ',' or ']', but got "
            "'<stream end>'",
        ),
        (
            "a: 1\n---\nb: 2",
            "f.yaml:2: broken YAML: expected a single document in the stream, but found another "
            "document",
        ),
        ("\na: \x01", "f.yaml:2: broken YAML: a character that text cannot hold"),
        ("[" * 3000 + "]" * 3000, "f.yaml:1: nested too deeply; a few levels are read"),
        ("model: &m {}\ndata: *m", "f.yaml:2: *m is an alias; write its value instead"),
        ("? [1]\n: 2", "f.yaml:1: a key is a list or a mapping; keys are names"),
        ("a: !!int x", 'f.yaml:1: "x" cannot be read as int'),
        ("a: !!bool x", 'f.yaml:1: "x" cannot be read as bool'),
        ('a: "\\ud800"', 'f.yaml:1: "\\ud800" cannot be read as str'),
        (
            "a: 1\nb: !!python/object:os.x {}",
            "f.yaml:2: the tag tag:yaml.org,2002:python/object:os.x is not read; remove it",
        ),
        ("a: !own x", "f.yaml:1: the tag !own is not read; remove it"),
    ],
)
def test_what_is_no_experiment(refusal: Refusal, text: str, message: str) -> None:
    assert refusal(text) == [message]


def test_a_missing_file_names_the_nearest() -> None:
    for name in ("finetune.yaml", "pretrain.yml", "notes.txt"):
        Path(name).touch()
    with pytest.raises(ConfigError) as caught:
        load("fintune.yml")
    assert str(caught.value) == "fintune.yml: no such file; did you mean finetune.yaml?"


def test_a_missing_file_among_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load("a.yaml")
    assert str(caught.value) == f"a.yaml: no such file; there is no *.yaml file in {tmp_path}"


def test_a_missing_folder() -> None:
    with pytest.raises(ConfigError) as caught:
        load("no/a.yaml")
    assert str(caught.value) == "no/a.yaml: no such file: the folder no does not exist"


def test_a_folder() -> None:
    Path("runs").mkdir()
    Path("runs/x.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        load("runs")
    assert str(caught.value) == "runs is a folder; did you mean runs/x.yaml?"


def test_a_file_that_is_not_text() -> None:
    Path("f.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError) as caught:
        load("f.yaml")
    assert str(caught.value) == "f.yaml: not UTF-8 text (byte 3); save it as UTF-8"


def test_a_path_that_cannot_be_opened() -> None:
    Path("f.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        load("f.yaml/g.yaml")
    assert str(caught.value) == "f.yaml/g.yaml: cannot be read: Not a directory"
