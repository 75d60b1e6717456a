"""A private run that starts from a model: what that has cost is counted, or it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

from atoll.accounting import stated
from atoll.errors import PrivacyError
from atoll.experiment.setup import Setup
from atoll.ledger import Entry, Ledger, verified
from atoll.runs.account import LEDGER
from atoll.runs.resume import forked
from atoll.runs.run import federated, run_experiment
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "federation": {"num_rounds": 2},
    "privacy": {"noise_multiplier": 2.0, "clip": 0.5, "sampling": "everyone"},
    "evaluate": {"baselines": []},
}
OPEN: Mapping[str, Any] = {"noise_multiplier": None, "clip": 1.0, "sampling": "poisson"}


def _setup(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, **both)


def _from(how: str, source: Path, folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    """The setup of a run that starts from another's model."""
    if how == "fork":
        return forked(_setup(folder, zoo, **sections), source, lambda text: None)
    adapter = {"name_or_path": str(source / "adapter")}
    return _setup(folder, zoo, **sections, adapter=adapter)


def _gaussian(rounds: int) -> float:
    """The ε of so many rounds of all clients: one release with as much less noise."""
    return float(get_epsilon_gaussian(2.0 / rounds**0.5, 1e-5))


@pytest.mark.parametrize("how", ["fork", "adapter"])
def test_a_model_that_promised_nothing_is_no_start_on_the_same_data(
    how: str, tmp_path: Path, zoo: Zoo
) -> None:
    run_experiment(_setup(tmp_path, zoo, privacy=OPEN), tmp_path / "open", Observer())
    setup = _from(how, tmp_path / "open", tmp_path, zoo)
    with pytest.raises(PrivacyError, match="same data under no promise to whole clients"):
        run_experiment(setup, tmp_path / "run", Observer())
    assert list((tmp_path / "run").iterdir()) == []
    # A row more or less makes no other data set.
    rows = next((tmp_path / "data").glob("*/train.jsonl"))
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    setup = _from(how, tmp_path / "open", tmp_path, zoo)
    with pytest.raises(PrivacyError, match="same data under no promise to whole clients"):
        run_experiment(setup, tmp_path / "run", Observer())


def test_a_promise_to_rows_is_none_to_clients(tmp_path: Path, zoo: Zoo) -> None:
    rows = {"unit": "example", "sampling": "poisson"}
    run_experiment(_setup(tmp_path, zoo, privacy=rows), tmp_path / "rows", Observer())
    with pytest.raises(PrivacyError, match="under no promise to whole clients"):
        run_experiment(
            _from("fork", tmp_path / "rows", tmp_path, zoo), tmp_path / "run", Observer()
        )


@pytest.mark.parametrize("how", ["fork", "adapter"])
def test_a_private_start_is_counted(how: str, tmp_path: Path, zoo: Zoo) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    run_experiment(_setup(tmp_path, zoo), first, Observer())
    summary = run_experiment(_from(how, first, tmp_path, zoo), second, Observer())
    assert summary["epsilon"] == pytest.approx(_gaussian(4), rel=1e-9)
    assert summary["privacy"]["run_epsilon"] == pytest.approx(_gaussian(2), rel=1e-9)
    assert summary["privacy"]["releases"] == 4
    assert len({line.entry.run for line in verified(second / LEDGER).lines}) == 2
    card = (second / "adapter" / "README.md").read_text()
    assert f"ε = {_gaussian(4):.4g} at" in card
    assert f"its own rounds come to {_gaussian(2):.4g}." in card
    rounds = [json.loads(line) for line in (second / "rounds.jsonl").read_text().splitlines()]
    spent = [_gaussian(2), _gaussian(3), _gaussian(4)]
    assert [line["epsilon"] for line in rounds] == pytest.approx(spent, rel=1e-9)
    # And so is the start of a start.
    summary = run_experiment(_from(how, second, tmp_path, zoo), third, Observer())
    assert summary["epsilon"] == pytest.approx(_gaussian(6), rel=1e-9)


def test_a_start_is_counted_once_in_a_ledger_that_both_write(tmp_path: Path, zoo: Zoo) -> None:
    privacy = {"ledger": str(tmp_path / "ledger")}
    run_experiment(_setup(tmp_path, zoo, privacy=privacy), tmp_path / "first", Observer())
    run_experiment(_setup(tmp_path, zoo, privacy=privacy), tmp_path / "beside", Observer())
    setup = _from("fork", tmp_path / "first", tmp_path, zoo, privacy=privacy)
    summary = run_experiment(setup, tmp_path / "second", Observer())
    assert summary["epsilon"] == pytest.approx(_gaussian(4), rel=1e-9)
    assert summary["privacy"]["lifetime_epsilon"] == pytest.approx(_gaussian(6), rel=1e-9)
    assert f"All runs of the ledger together come to ε = {_gaussian(6):.4g}." in str(
        stated(summary)
    )


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_kill_at_any_release_loses_none_of_the_start(
    written: int, tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_experiment(_setup(tmp_path, zoo), first, Observer())
    with monkeypatch.context() as patch:
        write, done = Ledger.write, []

        def killed(self: Ledger, entry: Entry, delta: float) -> Any:
            if len(done) == written:
                raise KeyboardInterrupt
            done.append(entry)
            return write(self, entry, delta)

        patch.setattr(Ledger, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(_from("fork", first, tmp_path, zoo), second, Observer())
    # Its start is kept, and what it cost, wherever the first run is now.
    shutil.rmtree(first)
    summary = run_experiment(_setup(tmp_path, zoo), second, Observer())
    assert summary["epsilon"] == pytest.approx(_gaussian(4), rel=1e-9)
    assert len(verified(second / LEDGER).releases) == 4


@pytest.mark.parametrize("what", ["folder", "other rows"])
def test_of_a_start_of_which_nothing_is_known_that_is_said(
    what: str, tmp_path: Path, zoo: Zoo
) -> None:
    source = tmp_path / "there" / "open"
    run_experiment(_setup(tmp_path / "there", zoo, privacy=OPEN), source, Observer())
    if what == "folder":
        shutil.copytree(source / "adapter", tmp_path / "loose" / "adapter")
        source = tmp_path / "loose"
    else:
        shutil.copytree(tmp_path / "there" / "data", tmp_path / "data")
        rows = next((tmp_path / "data").glob("*/train.jsonl"))
        rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    summary = run_experiment(_from("adapter", source, tmp_path, zoo), tmp_path / "run", Observer())
    said = "The run starts from an adapter of which nothing is known: ε is of what was trained"
    assert said in (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert summary["epsilon"] == pytest.approx(_gaussian(2), rel=1e-9)
    # Nothing more is known of what starts from there.
    setup = _from("fork", tmp_path / "run", tmp_path, zoo)
    summary = run_experiment(setup, tmp_path / "next", Observer())
    assert said in str(stated(summary))
    assert summary["epsilon"] == pytest.approx(_gaussian(4), rel=1e-9)


def test_a_run_whose_ledger_is_gone_does_not_go_on(tmp_path: Path, zoo: Zoo) -> None:
    run = tmp_path / "run"
    for line in federated(_setup(tmp_path, zoo), run, Observer()):
        if line.round == 1:
            break
    shutil.rmtree(run / LEDGER)
    with pytest.raises(
        PrivacyError, match="no release of 1 round of this run, of which 1 round are"
    ):
        run_experiment(_setup(tmp_path, zoo), run, Observer())
