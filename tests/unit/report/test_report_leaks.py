"""The section about attacks: there when they were tried, in words that follow the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atoll.errors import RunError
from atoll.report.audit_file import FORMAT, Audit
from atoll.report.leak_tables import leak_tables
from atoll.report.leaks import leak_sentences, uncovered
from atoll.report.page import page
from atoll.report.read import read_run
from tests.unit.report.html import Element, parsed
from tests.unit.report.scenes import run_folder

SEEN = {"tokens": 0.938, "token_chance": 0.0075, "token_auc": 0.961, "exact": 15.0, "wrong": 0.0,
        "true": 16.0, "row_auc": 0.99, "order": 0.5}  # fmt: skip
LESS = {**SEEN, "tokens": 0.31, "exact": 0.0, "row_auc": 0.75, "order": None}
NONE = {**SEEN, "tokens": 0.004, "token_auc": 0.51, "exact": 2.0, "wrong": 2.0, "row_auc": 0.52,
        "order": None}  # fmt: skip


def _audit(**changes: Any) -> dict[str, Any]:
    """audit.json of a run that promises nothing, with every key."""
    exposed = [{"copies": c, "bits": b, "fitted": b + 1, "secrets": 4}
               for c, b in ((0, 1.1), (1, 6.0), (4, 10.0))]  # fmt: skip
    hidden = [{**one, "bits": 1.25} for one in exposed]
    claim = {"epsilon": 8.0, "delta": 1e-5, "unit": "client", "noise_multiplier": 0.6,
             "rounds": 4, "rate": 0.1, "mechanism": "gaussian"}  # fmt: skip
    return {
        "run": "run", "task": "causal-lm", "method": "lora", "clients": 9, "format": FORMAT,
        "epsilon": None, "delta": None, "compared": 8.0, "seconds": 31.2, "missing": {},
        "sees": "client",
        "server": [
            {"name": "step", "clients": 1, "rows": 1, "seen": SEEN},
            {"name": "batch", "clients": 1, "rows": 4, "seen": {**SEEN, "order": 0.25}},
            {"name": "client", "clients": 1, "rows": 20, "seen": LESS},
            {"name": "sum", "clients": 4, "rows": 80, "seen": {**LESS, "tokens": 0.2}},
            {"name": "noisy", "clients": 4, "rows": 80, "seen": NONE},
        ],
        "secrets": {"plain": exposed, "private": hidden, "rounds": 4, "rows": 32, "compared": 1023},
        "membership": {"auc": {"value": 0.58, "interval": [0.52, 0.64]},
                       "tpr": {"value": 0.034, "interval": [0.01, 0.07]},
                       "members": 1000, "others": 219},
        "mechanism": {"claim": claim, "own": False, "canaries": 10_000, "bound": 3.2,
                      "estimate": 7.9, "interval": [7.5, 8.3], "least": 7.1,
                      "expected": 0.6, "noise": 0.61, "noise_interval": [0.55, 0.68],
                      "less_noise": False, "untried": ""},
        "ledger": None, "refuted": [],
        **changes,
    }  # fmt: skip


def _promising(**changes: Any) -> dict[str, Any]:
    """Of a run that promises ε = 4."""
    found = _audit(epsilon=4.0, delta=1e-5, compared=4.0)
    claim = {**found["mechanism"]["claim"], "epsilon": 4.0}
    mechanism = {**found["mechanism"], "claim": claim, "own": True, "estimate": 3.9, **changes}
    ledger = {"epsilon": 4.0, "wrong": "", "unread": ""}
    return {**found, "mechanism": mechanism, "ledger": ledger}


def _sentences(audit: dict[str, Any]) -> list[str]:
    return leak_sentences(Audit.model_validate(audit))


def _page(folder: Path, audit: dict[str, Any]) -> Element:
    (folder / "audit.json").write_text(json.dumps(audit))
    return parsed(page(read_run(folder)))


def test_the_sentences_hold_the_numbers() -> None:
    assert _sentences(_audit()) == [
        "Of the words in its clients' rows a server finds 31% from one client's update of a round "
        "(guessing: 0.8%); 20% from the sum of 4 clients, which is what secure aggregation shows "
        "(guessing: 0.8%); 0.4% from what ε = 8 releases (guessing: 0.8%). It puts words in their "
        "place: 50% of one step on 1 row, 25% of one step on 4 rows. In this run the server saw "
        "single updates.",
        "Of a secret that one client wrote 4 times among 32 rows, the model gives 10.0 bits away "
        "of 10.0 that could be measured; under ε = 8 it would give 1.2. A secret that nobody wrote "
        "has 1.1 by chance. Each bit halves the guesses that it takes to find the secret.",
        "By its loss, a row that was trained on is told from one that was not in 58% of pairs "
        "(guessing: 50%); where 1% may be accused wrongly, 3.4% are found out (guessing: 1%).",
        "The run promises no differential privacy: nothing bounds what one client's rows can do to "
        "the model. Noise of 0.6 clips in each round would promise ε = 8.",
    ]


def test_secrets_of_a_run_under_noise_are_those_of_its_own_training() -> None:
    audit = _promising()
    assert _sentences(audit)[1] == (
        "Of a secret that one client wrote 4 times among 32 rows, the model gives 1.2 bits away as "
        "this run trains, under ε = 4, of 10.0 that could be measured; without its noise 10.0. A "
        "secret that nobody wrote has 1.2 by chance. Each bit halves the guesses that it takes to "
        "find the secret."
    )
    _, secrets, *_ = leak_tables(Audit.model_validate(audit))
    assert secrets.head[1:] == ("without its noise", "as this run trains, under ε = 4")
    assert secrets.rows[-1] == ("4 times", "10.0", "1.2")


def test_without_words_it_is_about_rows() -> None:
    views = [{**view, "seen": {"row_auc": view["seen"]["row_auc"]}} for view in _audit()["server"]]
    assert _sentences(_audit(server=views))[0] == (
        "Of pairs of a row that was trained on and one that was not, a server tells which is "
        "which, where guessing gets half of them right: 75% from one client's update of a round; "
        "75% from the sum of 4 clients, which is what secure aggregation shows; 52% from what "
        "ε = 8 releases. In this run the server saw single updates."
    )
    views[-1]["seen"]["row_auc"] = 0.4
    found = _sentences(_audit(server=views))[0]
    assert "; no more than by guessing from what ε = 8 releases." in found
    assert _sentences(_audit(server=views, sees="sum"))[0].endswith(
        "In this run the server saw sums of updates, and no update."
    )


ARITHMETIC = (
    "The run promises each client ε = 4 at δ = 1e-05. The arithmetic: 10,000 clients, simulated "
    "under noise of 0.6 clips in 4 releases, suggest ε = 3.9 and refute any below 3.2; the ledger "
    "of releases comes to 4.000: in accord. "
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, f"{ARITHMETIC}The code: the noise of one round was measured as 0.61 clips, where 0.6 "
             "should be: in accord."),
        ({"untried": "too few values"}, f"{ARITHMETIC}The code was not tried (too few values): "
                                        "nothing says whether the noise is there."),
    ],
)  # fmt: skip
def test_a_promise_is_of_arithmetic_and_of_code(changes: dict[str, Any], said: str) -> None:
    assert _sentences(_promising(**changes))[-1] == said


def test_a_ledger_that_was_not_read_is_in_accord_with_nothing() -> None:
    audit = {**_promising(), "ledger": {"epsilon": None, "unread": "it is elsewhere"}}
    said = _sentences(audit)[-1]
    assert "; the ledger of releases was not read: it is elsewhere. The code: " in said
    assert said.count("in accord") == 1


def test_reasons_against_a_promise_are_said_also_without_canaries() -> None:
    for audit in (_promising(), {**_promising(), "mechanism": None}):
        assert _sentences({**audit, "refuted": ["this is so", "and that"]})[-1] == (
            "The promise of ε = 4 does not hold: this is so; and that. Do not publish the model "
            "under that promise."
        )


def test_a_promise_that_does_not_hold_is_marked_and_words_of_another_are_text(
    tmp_path: Path,
) -> None:
    hostile = "<script>alert(1)</script>"
    audit = {**_promising(), "missing": {hostile: hostile}, "refuted": [hostile]}
    audit["server"][0]["name"] = hostile
    root = _page(run_folder(tmp_path / "run"), audit)
    (bad,) = [p.text for p in root.every("p") if p.attributes.get("class") == "verdict bad"]
    assert bad == _sentences(audit)[-1]
    assert not list(root.every("script"))
    assert hostile in root.text


def test_the_page_has_the_section_where_attacks_were_tried(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    assert "leaks" not in page(read_run(folder))
    root = _page(folder, _audit(missing={"secrets": "there is no form for them"}, secrets=None))
    (section,) = [e for e in root.every("section") if e.attributes.get("id") == "leaks"]
    assert next(section.every("h2")).text == "What an attacker learns"
    assert any(a.attributes.get("href") == "#leaks" for a in root.every("a"))
    text = " ".join(section.text.split())
    for sentence in _sentences(_audit(secrets=None)):
        assert sentence in text
    assert "Not measured: planted secrets. There is no form for them." in text
    captions = [next(table.every("caption")).text for table in section.every("table")]
    assert captions == [
        "What a server sees of its clients' rows",
        "Whether the model tells who was trained on: 1,000 rows that were, 219 that were not",
        "Whether the noise is there",
    ]  # fmt: skip


def test_the_tables_hold_the_numbers() -> None:
    server, secrets, membership, mechanism = leak_tables(Audit.model_validate(_audit()))
    assert server.rows == (
        ("one step on one row", "94%", "0.8%", "99%", "50%"),
        ("one step on 4 rows", "94%", "0.8%", "99%", "25%"),
        ("one client's update (this run)", "31%", "0.8%", "75%", "–"),
        ("the sum of 4 clients", "20%", "0.8%", "75%", "–"),
        ("… under ε = 8", "0.4%", "0.8%", "52%", "–"),
    )
    assert secrets.rows == (
        ("nowhere", "1.1", "1.2"),
        ("once", "6.0", "1.2"),
        ("4 times", "10.0", "1.2"),
    )
    assert secrets.head[1:] == ("as this run trains", "under ε = 8")
    assert membership.rows == (
        ("pairs told apart (guessing: 50%)", "58%", "52% to 64%"),
        ("found out, where 1% is accused wrongly (guessing: 1%)", "3.4%", "1.0% to 7.0%"),
    )
    assert [row[1:] for row in mechanism.rows] == [
        ("8.000", "–"), ("7.900", "7.500 to 8.300"), ("3.200", "–"), ("0.600", "–"), ("0.600", "–"),
        ("0.610", "0.550 to 0.680"),
    ]  # fmt: skip
    assert all(len(row) == len(table.head) for table in (server, secrets, membership, mechanism)
               for row in table.rows)  # fmt: skip


def test_where_updates_leave_private_a_row_is_of_a_whole_training() -> None:
    audit = _promising()
    audit["server"] = audit["server"][:-1]
    audit["mechanism"]["claim"]["mechanism"] = "local"
    server, *_, mechanism = leak_tables(Audit.model_validate(audit))
    assert [row[0] for row in server.rows[:2]] == ["a training on one row", "a training on 4 rows"]
    first, *_, last = _sentences(audit)
    assert "50% of one training on 1 row, 25% of one training on 4 rows." in first
    assert "The code: the noise of one update was measured as" in last
    assert "ε that the ledger's releases come to" in [row[0] for row in mechanism.rows]


def test_what_guessing_does_as_well_is_not_told_as_a_share() -> None:
    told = {"auc": {"value": 0.51, "interval": [0.46, 0.56]}, "members": 9, "others": 9}
    assert _sentences(_audit(membership=told))[2] == (
        "Whether the model was trained on a row, its loss tells no better than guessing does, as "
        "far as these rows show."
    )


def test_parts_may_be_missing() -> None:
    nothing = _audit(server=None, secrets=None, membership=None, mechanism=None,
                     missing={"server": "x", "another": "y"})  # fmt: skip
    found = Audit.model_validate(nothing)
    assert leak_sentences(found) == []
    assert list(leak_tables(found)) == []
    assert uncovered(found) == [("what a server sees of uploads", "x"), ("another", "y")]


def test_an_audit_of_another_version_is_left_out_and_said(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "audit.json").write_text(json.dumps(_audit(format=99)))
    found = read_run(folder)
    assert found.audit is None
    assert found.notes == (
        "audit.json is of another version and left out; `atoll audit` measures again",
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}'])
def test_a_damaged_audit_is_said(tmp_path: Path, text: str) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "audit.json").write_text(text)
    with pytest.raises(RunError, match=r"audit\.json.*the file is damaged"):
        read_run(folder)
