"""What pages name in their sentences is there: keys, commands, files, links."""

from __future__ import annotations

import re
import shlex
from functools import cache

import pytest

from tests.support.pages import ROOT, inline, pages

PAGES = {**pages(), "CONTRIBUTING.md": ROOT / "CONTRIBUTING.md"}


@cache
def _keys() -> frozenset[str]:
    from atoll.config import Experiment

    sections = {name: field.annotation for name, field in Experiment.model_fields.items()}
    return frozenset(
        f"{name}.{key}" for name, kind in sections.items()
        for key in getattr(kind, "model_fields", ())
    )  # fmt: skip


def _unknown_key(words: str) -> str | None:
    """A key of the experiment file that is none, in `train.group_size: 2` or a `key=value`."""
    sections = {key.partition(".")[0] for key in _keys()}
    found = re.fullmatch(r"((\w+)\.\w+)(?:[:=].*)?", words)
    wrong = found and found[2] in sections and found[1] not in {*_keys(), "model.safetensors"}
    return found[1] if found and wrong else None


@pytest.mark.parametrize("name", PAGES)
def test_keys_that_a_page_names_are_there(name: str) -> None:
    assert [key for words in inline(PAGES[name]) if (key := _unknown_key(words))] == []


def test_a_wrong_key_is_seen() -> None:
    assert _unknown_key("train.group_sizes: 2") == "train.group_sizes"
    assert _unknown_key("data.paths=x") == "data.paths"
    for words in ("data.path: x", "atoll.load", "test.jsonl", "model.safetensors"):
        assert _unknown_key(words) is None


def _unknown_command(words: str) -> str | None:
    """What of `atoll WORDS` the command line does not have."""
    import click
    import typer

    from atoll.cli.app import app

    here: click.Command = typer.main.get_command(app)
    for word in shlex.split(words)[1:]:
        if isinstance(here, click.Group) and not word.startswith("-"):
            if word not in here.commands:
                return word
            here = here.commands[word]
        elif word.startswith("-"):
            options = [name for option in here.params for name in option.opts]
            if word not in options:
                return word
        elif "=" in word and (key := _unknown_key(word)):
            return key
    return None


@pytest.mark.parametrize("name", PAGES)
def test_commands_inside_of_sentences_are_there(name: str) -> None:
    typed = [words for words in inline(PAGES[name]) if words.startswith("atoll ")]
    assert [(words, wrong) for words in typed if (wrong := _unknown_command(words))] == []


def test_a_wrong_command_is_seen() -> None:
    assert _unknown_command("atoll trian x") == "trian"
    assert _unknown_command("atoll data check x --colums a=b") == "--colums"
    assert _unknown_command("atoll run x train.rate=1") == "train.rate"
    assert _unknown_command("atoll export RUN --merge") is None
    assert _unknown_command("atoll client --page") == "--page"
    assert _unknown_command("atoll client --ui") is None


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_are_there(name: str) -> None:
    named = [words for words in inline(PAGES[name])
             if re.fullmatch(r"(?:atoll|tests|benchmarks|docs)/[\w/.-]+", words)]  # fmt: skip
    assert [file for file in named if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_every_page_is_reached_from_the_readme_or_the_front_page() -> None:
    text = {
        name: PAGES[name].read_text(encoding="utf-8") for name in ("README.md", "docs/index.md")
    }
    for name in PAGES.keys() - {"README.md", "CONTRIBUTING.md", "docs/index.md"}:
        assert f"({name})" in text["README.md"], f"README.md does not link to {name}"
        inside = name.removeprefix("docs/")
        assert f"({inside})" in text["docs/index.md"], f"docs/index.md does not link to {inside}"
