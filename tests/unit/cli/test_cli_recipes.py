"""The packaged experiment files, and copying them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.cli.packaged import about, edits, find_recipe, names
from atoll.cli.recipes import init
from atoll.config import load
from atoll.errors import ConfigError


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_a_valid_experiment_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    text = find_recipe(name).read_text(encoding="utf-8")
    path = tmp_path / f"{name}.yaml"
    init(name, output=path)
    assert load(path).experiment.output_dir == f"runs/{name}"
    assert text.startswith("# ")
    assert 40 < len(about(text)) <= 100


def test_the_recipes_are_there() -> None:
    assert set(names()) == {
        "classify",
        "dpo",
        "embed",
        "finetune",
        "private",
        "quickstart",
        "vision",
    }


@pytest.mark.parametrize("name", [name for name in names() if name != "quickstart"])
def test_a_recipe_marks_exactly_the_model_the_data_and_labels_that_stay(name: str) -> None:
    found = [line for _, line in edits(find_recipe(name).read_text(encoding="utf-8"))]
    keys = ["name_or_path", "path", *(["labels"] if name == "private" else [])]
    assert [line.partition(":")[0] for line in found] == keys


def test_quickstart_needs_no_network_and_no_edit(tmp_path: Path) -> None:
    text = find_recipe("quickstart").read_text(encoding="utf-8")
    (tmp_path / "q.yaml").write_text(text)
    experiment = load(tmp_path / "q.yaml").experiment
    assert experiment.model.name_or_path.startswith("builtin:")
    assert experiment.data.path.startswith("builtin:")
    assert edits(text) == []


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as error:
        find_recipe("quickstrt")
    assert str(error.value) == (
        'there is no recipe "quickstrt"; did you mean "quickstart"? Recipes: ' + ", ".join(names())
    )
    with pytest.raises(ConfigError, match=r'^there is no recipe "xyzzy". Recipes: '):
        find_recipe("xyzzy")


def test_init_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError) as error:
        init("classify", output=path)
    assert str(error.value) == (
        f"{path} exists; overwrite it with --force, or name another file with -o"
    )
    assert path.read_text() == "mine"
    init("classify", output=path, force=True)
    assert path.read_text() == find_recipe("classify").read_text(encoding="utf-8")
    assert f"Then: atoll run {path}" in capsys.readouterr().out


def test_init_says_which_lines_to_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    init("classify")
    out = capsys.readouterr().out.splitlines()
    lines = Path("classify.yaml").read_text().splitlines()
    assert out[:2] == ["Wrote classify.yaml.", "Edit these lines:"]
    for shown in out[2:4]:
        place, value = shown.strip().split("  ", 1)
        assert lines[int(place.removeprefix("classify.yaml:")) - 1].strip().startswith(value)
    assert out[4:] == ["Then: atoll run classify.yaml"]


def test_init_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path} is a folder; name a file with -o "):
        init("classify", output=tmp_path)


def test_init_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from atoll.cli.output import Format

    init("classify", output=tmp_path / "a.yaml", output_format=Format.json)
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(tmp_path / "a.yaml")
    assert len(found["edit"]) == 2
