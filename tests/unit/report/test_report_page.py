"""report.html: what it says, that it stands alone, and that hostile names stay text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atoll.report.page import page
from atoll.report.read import read_run
from tests.unit.report.html import Element, parsed
from tests.unit.report.scenes import EXPERIMENT, HOSTILE, clients, run_folder, summary_of

MEGABYTE = 1_000_000


def _page(folder: Path) -> Element:
    return parsed(page(read_run(folder)))


def _table(root: Element, caption: str) -> list[list[str]]:
    """Head and rows of the table of that caption, as text."""
    (found,) = [
        table for table in root.every("table") if next(table.every("caption")).text == caption
    ]
    return [[cell.text for cell in row.every("th", "td")] for row in found.every("tr")]


def test_a_finished_run_tells_its_result(tmp_path: Path) -> None:
    root = _page(run_folder(tmp_path / "my run"))
    text = " ".join(root.text.split())
    assert next(root.every("h1")).text.split() == ["my", "run", "finished"]
    assert next(root.every("title")).text == "my run – Atoll report"
    for said in (
        "classification · builtin:minilm · lora (rank 8, alpha 16) · fedprox (mu 0.1) · 3 clients",
        "on everyone's test rows it is 0.812 against 0.500.",
        "accuracy, federated 0.812 0.700 to 0.900 (95% interval), on the common test set",
        "against local only +0.312 +0.250 to +0.375 (95% interval)",
        "against pooled −0.031 −0.062 to +0.016 (95% interval)",
        "exchanged 15.0 MB 5.0 MB up, 10.0 MB down",
        "time of the rounds 7.5 s 1:35 in all",
        "Differential privacy: none; nothing bounds",
        "No client failed.",
        "Left out, because without usable rows: nobody.",
        "rounds 4; the best was round 3",
        "trained parameters 294,912",
        "command atoll run 'my file.yaml'",
        "fingerprints.base ab12",
    ):
        assert said in text, said
    assert "only-in-the-table" not in text
    (code,) = [element.text for pre in root.every("pre") for element in pre.every("code")]
    assert code == EXPERIMENT


def test_the_tables_hold_the_numbers(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    root = _page(folder)
    assert _table(root, "accuracy of each way to a model") == [
        ["model", "common test set", "95% interval", "own rows: mean", "worst client",
         "worst 10%", "spread"],
        ["federated", "0.812", "0.700 to 0.900", "0.750", "0.500", "0.550", "0.080"],
        ["local only", "0.500", "–", "0.750", "0.500", "0.550", "0.080"],
        ["pooled", "0.844", "–", "–", "–", "–", "–"],
    ]  # fmt: skip
    assert _table(root, "All metrics on the common test set")[1] == ["federated", "0.812", "0.719"]
    assert _table(root, "Every round")[:2] == [
        ["round", "loss", "accuracy", "own rows", "clients", "exchanges", "up", "down", "time"],
        ["0", "–", "0.500", "0.400", "0", "1", "1.0 MB", "2.0 MB", "1.5 s"],
    ]
    assert _table(root, "Bytes and time")[1:] == [
        ["clients to server", "5.0 MB", "1.0 MB", "1.0 MB"],
        ["server to clients", "10.0 MB", "2.0 MB", "2.0 MB"],
        ["time of the rounds", "7.5 s", "1.5 s", "1.5 s"],
        ["time in all, with baselines", "1:35", "–", "–"],
    ]
    rows = _table(root, "accuracy on each client's own rows")
    row = json.loads((folder / "summary.json").read_text())["per_client"]["bob"]
    assert [line[0] for line in rows[1:]] == ["ada", "bob", "cy"]
    assert rows[2][3:6] == [f"{row[arm]:.3f}" for arm in ("federated", "local", "pooled")]
    assert rows[2][6] == f"{row['gain']:+.3f}".replace("-", "−")


def test_failures_are_gathered_by_client(tmp_path: Path) -> None:
    failures = {"ada": "no answer", "<b>": "values are <not> finite"}
    found = _table(_page(run_folder(tmp_path / "run", failures=failures)), "Failures of 2 clients")
    assert found == [
        ["client", "failures", "in rounds", "why"],
        ["<b>", "1", "2", "values are <not> finite"],
        ["ada", "1", "2", "no answer"],
    ]


def test_a_page_stands_alone_and_can_be_read_by_machines(tmp_path: Path) -> None:
    text = page(read_run(run_folder(tmp_path / "run", failures={"ada": "x"})))
    root = parsed(text)
    tags = {element.tag for element in root.every()}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert "url(" not in re.sub(r'clip-path="url\(#[^)"]+\)"', "", text)
    assert "@import" not in text
    for element in root.every():
        assert not [name for name in element.attributes if name.startswith("on")]
        for name in ("href", "src", "srcset", "action", "data", "xlink:href"):
            assert element.attributes.get(name, "#").startswith("#")
    names = [e.attributes["id"] for e in root.every() if "id" in e.attributes]
    assert len(names) == len(set(names))
    targets = {e.attributes["href"][1:] for e in root.every() if "href" in e.attributes}
    assert targets <= set(names)
    for table in root.every("table"):
        assert next(table.every("caption")).text
        assert {e.attributes["scope"] for e in table.every("th")} == {"col", "row"}
    plots = [svg for svg in root.every("svg") if svg.attributes.get("aria-hidden") != "true"]
    assert len(plots) == 5
    assert all(svg.attributes["role"] == "img" for svg in plots)
    said = [svg.attributes["aria-label"] for svg in plots]
    assert said[1].startswith("Accuracy by round. common test set: 0.500 in round 0, 0.750 in ro")
    assert next(root.every("html")).attributes["lang"] == "en"
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 48rem"):
        assert rule in next(root.every("style")).text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    plain = [f"client {place}" for place in range(len(HOSTILE))]
    hostile = _page(run_folder(tmp_path / "a", HOSTILE, failures={HOSTILE[0]: HOSTILE[1]}))
    benign = _page(run_folder(tmp_path / "b", plain, failures={plain[0]: "why"}))

    def shape(root: Element) -> list[tuple[str, tuple[str, ...]]]:
        # A long name is cut, and stands whole in a title.
        return [
            (e.tag, tuple(name for name in e.attributes if name != "title")) for e in root.every()
        ]

    def rows(root: Element) -> list[str]:
        return [row[0] for row in _table(root, "accuracy on each client's own rows")[1:]]

    assert shape(hostile) == shape(benign)
    read = rows(hostile)
    for name in ("<script>alert(1)</script>", "{{ 7 * 7 }}{% raw %}", "$x_{1}$",
                 "back�[31mred��", "evil�gnp.exe�", "lone ? surrogate �", "日本の病院 🏥",
                 "a" * 79 + "…"):  # fmt: skip
        assert name in read
    svg = next(e for e in hostile.every("svg") if e.attributes.get("class") == "plot")
    drawn = [text.text for text in svg.every("text")]
    assert {"$x_{1}$", r"$\nonsense{$"} <= set(drawn)
    assert "<script>alert(1)<…" in drawn


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(min_size=1, max_size=60), why=st.text(max_size=60))
@example(name="<", why="]]>")
@example(name="\n", why="")
def test_any_name_and_message_leaves_the_page_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, plain_tags: list[str], name: str, why: str
) -> None:
    folder = tmp_path_factory.mktemp("x") / "run"
    root = _page(run_folder(folder, [name], failures={name: why}))
    assert [element.tag for element in root.every()] == plain_tags


@pytest.fixture(scope="module")
def plain_tags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The elements of a page on one client with a name that needs no care."""
    folder = tmp_path_factory.mktemp("x") / "run"
    root = _page(run_folder(folder, ["ada"], failures={"ada": "why"}))
    return [element.tag for element in root.every()]


def test_five_hundred_clients_are_folded_and_small(tmp_path: Path) -> None:
    names = [f"client-{place:03}" for place in range(500)]
    text = page(read_run(run_folder(tmp_path / "run", names)))
    assert len(text.encode()) < MEGABYTE
    root = parsed(text)
    (folded,) = [x for x in root.every("details") if "Every client" in x.text]
    assert "open" not in folded.attributes
    assert len(list(folded.every("tr"))) == 501
    assert [x.text for x in root.every("h3")][:2] == ["Helped most", "Helped least"]


def test_a_table_has_an_end(tmp_path: Path) -> None:
    names = [f"client-{place:05}" for place in range(6000)]
    text = page(read_run(run_folder(tmp_path / "run", names)))
    assert len(text.encode()) < 3 * MEGABYTE
    assert "The first 2,000 of 6,000; all stand in clients.jsonl." in text


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    root = _page(run_folder(tmp_path / "run", finished=False))
    text = " ".join(root.text.split())
    assert "not finished: round 4 of 4" in text
    assert "This run is not finished." in text
    assert "accuracy so far 0.750 in round 4" in text
    assert "Did federating help" not in text


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    text = " ".join(_page(folder).text.split())
    assert "not finished: round 0 of 4" in text
    assert "No round is finished yet." in text
    assert "Note: run.json is missing: versions are not known." in text


OLD_KEYS = ("task", "metric", "final", "baselines", "per_client", "num_rounds", "bytes_up",
            "bytes_down", "seconds")  # fmt: skip


def _old(summary: dict[str, Any]) -> dict[str, Any]:
    """What the first version wrote."""
    rows = {
        name: {key: row[key] for key in ("train", "test", "federated", "local", "pooled")}
        for name, row in summary["per_client"].items()
    }
    own = {"federated": {"mean": 0.75, "worst": 0.5, "spread": 0.08}, "local": None}
    return {key: summary[key] for key in OLD_KEYS} | {"per_client": rows, "own": own}


def test_an_older_run_has_no_intervals_and_is_read_all_the_same(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    summary = _old(summary_of(clients(["ada", "bob"])))
    (folder / "summary.json").write_text(json.dumps(summary))
    root = _page(folder)
    assert _table(root, "accuracy of each way to a model")[0] == [
        "model", "common test set", "own rows: mean", "worst client", "spread",
    ]  # fmt: skip
    head = _table(root, "accuracy on each client's own rows")[0]
    assert head[-1] == "gain"
    assert "interval" not in root.text.replace("interval's", "")


def test_lower_is_better(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    rows = {"ada": {"federated": 9.0, "local": 12.5, "train": 1, "test": 1}}
    summary = summary_of(rows) | {
        "metric": "perplexity", "higher_is_better": False, "final": 9.0,
        "baselines": {"local": 12.5}, "intervals": None, "metrics": {},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    text = " ".join(_page(folder).text.split())
    assert "Federating helped:" in text
    assert "against local only −3.50 lower is better" in text
    rows_read = _table(_page(folder), "perplexity on each client's own rows")
    assert rows_read[1][-1] == "+3.50"


def test_a_single_number_is_a_table_too(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", ["–"])
    summary = summary_of({"–": {}}) | {"own": {}, "intervals": None, "baselines": {}}
    (folder / "summary.json").write_text(json.dumps(summary))
    root = _page(folder)
    assert _table(root, "accuracy of each way to a model") == [
        ["model", "common test set"], ["federated", "0.812"],
    ]  # fmt: skip
    assert _table(root, "accuracy on each client's own rows") == [["client"], ["–"]]
    assert "Intervals are" not in root.text


def test_nothing_measured_is_no_verdict(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    summary = summary_of({}) | {"final": None, "baselines": {}, "own": {}, "intervals": None}
    (folder / "summary.json").write_text(json.dumps(summary | {"metrics": {"federated": None}}))
    text = " ".join(_page(folder).text.split())
    assert "this run does not say whether federating helped" in text
