"""`atoll audit` on runs of tiny models: what it writes, what it says, how it ends."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atoll.audit.findings import AUDIT, Books, Claim, Mechanism
from atoll.audit.refuting import refuting
from atoll.cli.app import guarded
from atoll.errors import PrivacyError
from atoll.report.audit_file import FILE, FORMAT, Audit
from atoll.report.leaks import leak_sentences
from tests.support.federation import labelled_rows, text_rows
from tests.support.finished import finish
from tests.support.scenes import write_clients
from tests.unit.trained.test_merge_tasks import CASES, SEEN, finished

if TYPE_CHECKING:
    from tests.support.models import Zoo


@pytest.fixture(scope="module")
def written(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that promises nothing."""
    return finish(tmp_path_factory.mktemp("written"), zoo, "llama")


@pytest.fixture(scope="module")
def private(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that promises something."""
    return finish(
        tmp_path_factory.mktemp("private"), zoo, "bert", adapter={"head": "train"},
        privacy={"noise_multiplier": 1.0, "clip": 0.2, "sampling": "everyone"},
    )  # fmt: skip


def _copy(run: Path, to: Path) -> Path:
    shutil.copytree(run, to / "run")
    return to / "run"


def _audit(
    run: Path, capsys: pytest.CaptureFixture[str], *more: str, code: int = 0
) -> dict[str, Any]:
    assert guarded(["audit", str(run), "--format", "json", *more]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found == json.loads((run / "audit.json").read_text())
    return found


def test_a_run_is_audited_and_its_report_says_so(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (AUDIT, FORMAT) == (FILE, 2)
    run = _copy(written, tmp_path)
    assert guarded(["audit", str(run)]) == 0
    said = capsys.readouterr()
    told = [line[:7] for line in said.err.splitlines()]
    assert told == ["1 of 4:", "2 of 4:", "3 of 4:", "4 of 4:"]
    for part in (
        "a server finds", "The run promises no differential privacy",
        "What a server sees of its clients' rows", "Planted secrets: bits given away",
        "Whether the model tells who was trained on", "Whether the noise is there",
        "A clip is the most that one client",
        f"Everything is in {run}; {run}/report.html says what it means.",
    ):  # fmt: skip
        assert part in said.out
    assert "What an attacker learns" in (run / "report.html").read_text()
    _is_of_a_run_without_promises(json.loads((run / "audit.json").read_text()))
    # No row of a client is quoted.
    rows = {text for client in text_rows().values() for row in client for text in row.values()}
    shown = said.out + (run / "audit.json").read_text() + (run / "report.html").read_text()
    assert len(rows) > 10
    assert not [text for text in rows if " " in text.strip() and text in shown]


def _is_of_a_run_without_promises(found: dict[str, Any]) -> None:
    typed = Audit.model_validate(found)
    assert typed.server is not None
    assert [view.name for view in typed.server] == ["step", "batch", "client", "sum", "noisy"]
    step = typed.server[0].seen
    assert (step.tokens, step.wrong) == (1.0, 0)
    assert typed.secrets is not None
    assert [one.copies for one in typed.secrets.plain] == [0, 1, 4]
    assert typed.membership is not None
    assert typed.mechanism is not None
    assert (typed.mechanism.own, typed.refuted, typed.ledger) == (False, (), None)
    assert typed.mechanism.claim.epsilon == typed.compared == 8.0
    assert typed.mechanism.canaries == 10_000
    assert typed.mechanism.bound < 8.0
    assert typed.mechanism.interval is not None
    # Half of its width is two standard errors.
    low, high = typed.mechanism.interval
    assert abs((low + high) / 2 - 8.0) < high - low
    assert found["missing"] == {}
    assert (found["epsilon"], found["task"], found["method"]) == (None, "causal-lm", "lora")


@pytest.mark.long
def test_a_promise_that_holds(
    private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copy(private, tmp_path)
    found = _audit(run, capsys)
    promised = json.loads((run / "summary.json").read_text())
    # One release of the Gaussian mechanism with a multiplier of 1, at δ = 1e-5.
    assert found["epsilon"] == promised["epsilon"] == pytest.approx(4.377, abs=0.01)
    typed = Audit.model_validate(found)
    assert typed.compared == found["epsilon"]
    assert typed.mechanism is not None
    assert (typed.mechanism.own, typed.refuted) == (True, ())
    assert typed.ledger is not None
    assert typed.ledger.epsilon == pytest.approx(found["epsilon"])
    assert typed.mechanism.claim.noise_multiplier == 1.0
    assert typed.mechanism.noise == pytest.approx(1.0, abs=0.25)


def test_a_promise_that_does_not_hold_ends_with_10(
    private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copy(private, tmp_path)
    # Twice the noise that the mechanism of this run adds.
    _summary(run, privacy={**_summary(run)["privacy"], "noise_multiplier": 2.0})
    assert guarded(["audit", str(run)]) == 10
    said = capsys.readouterr().err
    assert f"Error: the promise of {run} does not hold: epsilon" in said
    assert "; do not publish the model under that promise" in said
    assert re.search(r"its own code adds less noise than promised, \S+ clips of 2;", said)
    assert "does not hold" in (run / "report.html").read_text()


def _summary(run: Path, **changes: Any) -> dict[str, Any]:
    """summary.json, changed."""
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**found, **changes}))
    return found


def test_less_is_promised_than_the_noise_comes_to(
    private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copy(private, tmp_path)
    _summary(run, epsilon=3.0)
    found = _audit(run, capsys, code=10)
    by_ledger, by_noise = found["refuted"]
    assert by_ledger.endswith("come to epsilon 4.377, and its summary.json says epsilon 3")
    assert re.match(r"noise of 1 clips in 1 releases comes to about 4\.\d+, and to no", by_noise)


@pytest.mark.parametrize(
    ("break_", "said"),
    [
        (lambda folder: _without_its_end(folder / "ledger.jsonl"), "ledger.jsonl ends after line"),
        (lambda folder: shutil.rmtree(folder), "privacy is empty, where each release is written"),
    ],
    ids=["line", "all"],
)
def test_a_ledger_that_is_not_whole_ends_with_10(
    private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], break_: Any, said: str
) -> None:
    run = _copy(private, tmp_path)
    break_(run / "privacy")
    (why,) = _audit(run, capsys, code=10)["refuted"]
    assert said in why
    sentences = leak_sentences(Audit.model_validate_json((run / "audit.json").read_text()))
    assert f"does not hold: {why}. Do not publish" in sentences[-1]


def _without_its_end(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def test_a_ledger_that_is_elsewhere_is_said_and_nothing_is_in_accord_with_it(
    private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copy(private, tmp_path)
    shutil.move(run / "privacy", tmp_path / "shared")
    _replaced(run, "experiment.yaml", "ledger: null", f"ledger: {tmp_path / 'shared'}")
    assert _audit(run, capsys)["ledger"]["epsilon"] == pytest.approx(4.377, abs=0.001)
    shutil.move(tmp_path / "shared", tmp_path / "elsewhere")
    found = _audit(run, capsys)
    assert (found["refuted"], found["ledger"]["epsilon"]) == ([], None)
    assert "shared, and there is none here" in found["ledger"]["unread"]


@pytest.mark.parametrize(
    ("changes", "ledger", "reasons"),
    [
        ({}, "", 0),
        ({"bound": 4.1}, "", 1),
        ({"least": 4.1}, "", 1),
        ({"least": None}, "", 0),
        ({"estimate": None, "least": None}, "", 1),
        ({"less_noise": True}, "", 1),
        ({"less_noise": True, "least": 4.1}, "it was changed", 3),
        ({"claim": Claim(None, 1e-5, "client", 1.0, 10, 0.5), "less_noise": True}, "", 0),
    ],
)
def test_what_refutes_a_promise(changes: dict[str, Any], ledger: str, reasons: int) -> None:
    claim = Claim(4.0, 1e-5, "client", 1.0, 10, 0.5)
    found = Mechanism(
        claim, True, 1000, 3.0, 4.2, (3.9, 4.5), 3.8, 1.0, 1.0, (0.9, 1.1), less_noise=False
    )
    changed = replace(found, **changes)
    assert len(list(refuting(changed.claim, changed, Books(wrong=ledger)))) == reasons


@pytest.mark.long
def test_a_run_that_hides_rows(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finish(
        tmp_path, zoo, "bert", adapter={"head": "train"},
        privacy={"unit": "example", "noise_multiplier": 1.0, "clip": 0.2},
    )  # fmt: skip
    typed = Audit.model_validate(_audit(run, capsys))
    assert typed.server is not None
    # What leaves a client is private already: nothing is under clients' noise.
    assert [view.name for view in typed.server] == ["step", "batch", "client", "sum"]
    assert typed.mechanism is not None
    assert (typed.mechanism.own, typed.refuted) == (True, ())
    assert typed.mechanism.claim.unit == "example"
    assert typed.mechanism.noise == pytest.approx(1.0, abs=0.1)
    _summary(run, privacy={**_summary(run)["privacy"], "noise_multiplier": 2.0})
    assert guarded(["audit", str(run)]) == 10


@pytest.mark.long
@pytest.mark.parametrize(
    ("privacy", "sees", "views"),
    [
        ({"mechanism": "local"}, "client", ["step", "batch", "client", "sum"]),
        ({"mechanism": "distributed", "secure_aggregation": True, "min_survivors": 2,
          "corrupt": 0, "dropping": 0}, "noisy", ["step", "batch", "client", "sum", "noisy"]),
    ],
    ids=["local", "distributed"],
)  # fmt: skip
def test_a_run_whose_clients_add_the_noise(
    zoo: Zoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    privacy: dict[str, Any],
    sees: str,
    views: list[str],
) -> None:
    run = finish(
        tmp_path, zoo, "bert", adapter={"head": "train"}, federation={"clients_per_round": 4},
        privacy={"epsilon": 8.0, "clip": 0.2, **privacy},
    )  # fmt: skip
    typed = Audit.model_validate(_audit(run, capsys))
    assert typed.sees == sees
    assert typed.server is not None
    assert [view.name for view in typed.server] == views
    assert typed.mechanism is not None
    assert not typed.refuted
    # Against the server, which knows whom it asks, a client is in each round for certain.
    assert typed.mechanism.claim.rate == 1.0
    found, promised = typed.mechanism.interval, typed.epsilon
    assert found is not None
    assert promised is not None
    if privacy["mechanism"] == "local":
        assert found[0] * 0.9 < promised < found[1] * 1.1
    else:  # what is spent of shares is counted by Rényi divergences, which is more
        assert 0.8 * promised < found[1] < promised * 1.1
    noise = typed.mechanism.claim.noise_multiplier
    assert typed.mechanism.noise == pytest.approx(noise, rel=0.1)


@pytest.mark.long
def test_a_run_whose_rounds_take_noise_back(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finish(
        tmp_path, zoo, "bert", adapter={"head": "train"},
        federation={"num_rounds": 8, "clients_per_round": 1},
        privacy={"epsilon": 8, "clip": 0.2, "mechanism": "blt", "sampling": "turns"},
    )  # fmt: skip
    found = _audit(run, capsys)
    assert not found["missing"]
    assert found["compared"] == found["epsilon"]
    seen = found["mechanism"]
    assert not seen["less_noise"]
    low, high = seen["noise_interval"]
    assert low * 0.9 < seen["claim"]["noise_multiplier"] < high * 1.1


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_runs_of_every_task(
    case: str,
    zoo: Zoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    kind = CASES[case][1]
    models = request.getfixturevalue("gallery") if kind in SEEN else zoo
    found = _audit(finished(tmp_path, case, models(kind)), capsys)
    parts = {"server", "secrets", "membership", "mechanism"}
    assert {part for part in parts if found[part]} == parts - found["missing"].keys()
    # Each part says what it measured, or why it did not.
    assert all(found["missing"].values())
    if found["server"]:
        seen = [view["seen"]["row_auc"] for view in found["server"]]
        assert all(value is None or 0 <= value <= 1 for value in seen)


@pytest.mark.long
def test_a_run_of_which_only_the_head_is_solved(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finish(tmp_path, zoo, "bert", adapter={"method": "none", "head": "lda"})
    found = _audit(run, capsys)
    assert "adapter.method is none: no linear layer trains" in found["missing"]["server"]
    assert found["missing"]["secrets"].startswith("no model is trained at the clients")
    assert found["missing"]["mechanism"].startswith("no model is trained at the clients")
    assert found["membership"]["members"] > 0


@pytest.mark.parametrize(
    ("break_", "code", "said"),
    [
        (lambda run: shutil.rmtree(run), 6, "there is no run directory"),
        (lambda run: (run / "summary.json").unlink(), 6, "is not finished"),
        (lambda run: (run / "run.json").write_text("{}"), 6, "is not what a run writes"),
        (lambda run: shutil.rmtree(run / "adapter"), 6, "cannot be read"),
        (lambda run: _summary(run, privacy={"unit": "client"}), 6,
         "is not what a run writes: its promise has no noise_multiplier; put back"),
        (lambda run: _replaced(run, "experiment.yaml", "/data\n", "/nowhere\n"), 3,
         "There is no file or folder "),
        (lambda run: _replaced(run, "experiment.yaml", "r: 8", "r: 4"), 4, "needs (4, "),
        (lambda run: _replaced(run, "experiment.yaml", "seed:", "ancient: 1\nseed:"), 2, "ancient"),
    ],
    ids=["gone", "unfinished", "record", "adapter", "promise", "rows", "rank", "older"],
)  # fmt: skip
def test_runs_that_cannot_be_opened(
    written: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_: Any,
    code: int,
    said: str,
) -> None:
    run = _copy(written, tmp_path)
    break_(run)
    assert guarded(["audit", str(run)]) == code
    assert said in capsys.readouterr().err
    assert not (run / "audit.json").exists()


def _replaced(run: Path, name: str, before: str, after: str) -> None:
    text = (run / name).read_text()
    assert before in text
    (run / name).write_text(text.replace(before, after, 1))


@pytest.mark.long
def test_a_run_that_goes_on_is_not_what_was_audited(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copy(written, tmp_path)
    (run / "audit.json").write_text("{}")
    more = ["run", str(run / "experiment.yaml"), f"output_dir={run}", "federation.num_rounds=2"]
    assert guarded(more) == 0
    assert not (run / "audit.json").exists()
    assert "Attacks" not in (run / "report.html").read_text()


def test_a_run_whose_bound_follows_its_updates(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of 20 clients the count of who is below the bound has a noise of 1, and of the audit's four it
    # would have 0.2, which cannot go with this multiplier.
    write_clients(tmp_path / "data", labelled_rows({f"site-{n:02}": 2 for n in range(20)}), test=1)
    run = finish(
        tmp_path, zoo, "bert", adapter={"head": "train"},
        privacy={"noise_multiplier": 0.8, "clip": {"adaptive": True}, "sampling": "everyone"},
    )  # fmt: skip
    found = _audit(run, capsys)
    assert not found["missing"]
    seen = found["mechanism"]
    # One release of two: 0.8⁻² = z⁻² + (2 · 1)⁻².
    assert seen["expected"] == pytest.approx((0.8**-2 - 2.0**-2) ** -0.5)
    assert not seen["less_noise"]
    low, high = seen["noise_interval"]
    assert low * 0.9 < seen["expected"] < high * 1.1


def test_an_error_of_privacy_in_a_part_is_no_promise_that_does_not_hold(
    written: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(subject: object) -> None:
        raise PrivacyError("no noise can be had for this")

    monkeypatch.setattr("atoll.audit.audited._PARTS", {"mechanism": ("noise", refuses)})
    found = _audit(_copy(written, tmp_path), capsys)
    assert found["missing"] == {"mechanism": "no noise can be had for this"}


def test_rows_that_moved_are_named_and_rows_that_changed_are_said(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = _copy(written, tmp_path), tmp_path / "moved"
    shutil.copytree(written.parent / "data", data)
    _replaced(run, "experiment.yaml", "/data\n", "/nowhere\n")
    found = _audit(run, capsys, "--data", str(data))
    assert not found["changed"]
    assert found["membership"]
    (file, *_) = sorted(data.rglob("train.jsonl"))
    file.write_text(file.read_text().replace("a", "e"))
    found = _audit(run, capsys, "--data", str(data))
    assert found["changed"]
    assert found["membership"] is None
    assert found["missing"]["membership"].startswith("the rows are not known to be those")
    page = (run / "report.html").read_text()
    assert "The rows that were tried are not known to be those that the run was trained on" in page


def test_images_have_no_secrets_whatever_their_length(
    gallery: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _audit(finished(tmp_path, "vit", gallery("vit")), capsys)
    assert found["missing"]["secrets"].startswith("secrets are texts that a model writes or gives")
