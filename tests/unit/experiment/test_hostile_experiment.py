"""Experiments from a server that means no good: nothing of them runs, and no file of the site's."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from atoll.errors import AtollError, PolicyError
from atoll.experiment.joining import Place, taken_up
from atoll.experiment.offers import versions
from atoll.experiment.terms import Opening
from atoll.policy import Policy
from tests.support.federation import labelled_rows
from tests.support.scenes import write_clients

RUN = 32 * "a"
PLAIN = {"model": {"name_or_path": "builtin:minilm"}, "federation": {"num_rounds": 1}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A site beside whose process lies a module that tells when it is imported."""
    write_clients(tmp_path / "data", labelled_rows({"ada": 9}))
    (tmp_path / "trap.py").write_text("open('sprung', 'w')\ndef fn(*_, **__): return None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    policy = Policy(label_names=True, min_rows=1)
    return Place("ada", tmp_path / "data" / "ada", tmp_path / "state", policy)


def text(**sections: Any) -> str:
    written: dict[str, Any] = {name: dict(values) for name, values in PLAIN.items()}
    for name, values in sections.items():
        written[name] = {**written.get(name, {}), **values} if isinstance(values, dict) else values
    return yaml.safe_dump(written)


def taken(place: Place, experiment: str) -> Any:
    opening = Opening(versions=versions(), run=RUN, experiment=experiment, agreed=None)
    return taken_up(opening, RUN, place).experiment


@pytest.mark.parametrize(
    ("experiment", "rule"),
    [
        (text(federation={"algorithm": "trap:fn"}), "algorithms"),
        (text(federation={"aggregator": "trap:fn"}), "algorithms"),
        (text(federation={"server": {"name": "trap:fn", "x": 1}}), "algorithms"),
        (text(federation={"stages": ["trap:fn"]}), "algorithms"),
        (text(federation={"stages": [{"name": "os:system", "command": "touch sprung"}]}),
         "algorithms"),
        (text(model={"trust_remote_code": True}), "remote_code"),
        (text(model={"name_or_path": "/srv/models/theirs"}), "models"),
        (text(adapter={"method": "full"}), "tensors"),
    ],
)  # fmt: skip
def test_code_of_others_is_not_even_imported(place: Place, experiment: str, rule: str) -> None:
    with pytest.raises(PolicyError) as found:
        taken(place, experiment)
    assert found.value.rule == rule
    assert "trap" not in sys.modules
    assert not Path("sprung").exists()


def test_what_is_the_sites_own_stays_so(place: Place) -> None:
    found = taken(place, text(
        data={"path": "/etc", "partition": "trap:fn"},
        federation={"runtime": "trap:fn"},
        adapter={"name_or_path": "/root/adapter"},
        report_to="tensorboard",
    ))  # fmt: skip
    assert Path(found.data.path) == place.data
    assert (found.data.partition, found.federation.runtime.name) == (None, "inprocess")
    assert (found.adapter.name_or_path, found.report_to) == (None, "none")
    assert not Path("sprung").exists()


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)


@pytest.mark.parametrize(
    "experiment",
    [
        "", "just text", "- a list", "\x00", "a: [" * 5_000, BOMB, "{" * 100_000,
        "model: !!python/object/apply:os.system ['touch sprung']",
        "model: !!python/name:trap.fn", "? {a: b}\n: c", "model: *gone", "%YAML 9.9\n---\na: 1",
        text(model={"name_or_path": ["a", "b"]}), text(unknown={"key": 1}),
        text(federation={"num_rounds": "9" * 5_000}), text(federation={"num_rounds": -1}),
        "model: {name_or_path: a}\nmodel: {name_or_path: b}",
    ],
)  # fmt: skip
def test_other_text_is_refused_with_a_sentence(place: Place, experiment: str) -> None:
    with pytest.raises(AtollError) as found:
        taken(place, experiment)
    assert str(found.value)
    assert not Path("sprung").exists()


def test_state_of_the_site_is_not_written_over(place: Place) -> None:
    """What a federation writes lies in a folder of its own, beside what is the site's."""
    own = place.state / "egress" / "egress.head"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    taken(place, text(output_dir="egress"))
    assert {path.name for path in place.state.iterdir()} == {"egress", RUN}
    assert own.read_text() == "mine"
    assert {path.name for path in (place.state / RUN).iterdir()} == {"experiment.yaml"}


def test_a_sites_own_model_needs_no_leave(place: Place, tmp_path: Path) -> None:
    own = replace(place, overrides=(f"model.name_or_path={tmp_path}",))
    found = taken(own, text(model={"name_or_path": "/srv/models/theirs"}))
    assert found.model.name_or_path == str(tmp_path)
