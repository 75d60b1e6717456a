"""`atoll data check`: the card on the screen and as JSON, and errors as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.cli.data import check
from atoll.cli.output import Format
from atoll.data import load
from atoll.errors import ConfigError, DataError

ROWS = [
    {"body": f"text {number}", "label": "odd" if number % 2 else "even"} for number in range(20)
]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def test_a_folder_of_clients_is_shown_client_by_client(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for client in ("ada", "bob"):
        (tmp_path / client).mkdir()
        rows = "".join(
            json.dumps({"text": f"{client} {i}", "label": "x"}) + "\n" for i in range(12)
        )
        (tmp_path / client / "train.jsonl").write_text(rows)
    (tmp_path / "cy").mkdir()
    check(str(tmp_path))
    out = capsys.readouterr().out
    assert "2 clients: 22 training rows, 2 held-out rows" in out
    assert "left out: cy (an empty folder)" in out
    assert "can train: classification" in out
    assert out.index("ada") < out.index("bob")
    assert "data.partition" not in out


def test_one_file_is_looked_at_whole(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(file, columns=["text=body"])
    out = capsys.readouterr().out
    assert "1 client: 20 training rows, 0 held-out rows" in out
    assert "one data set: a run needs data.partition to divide it among clients" in out


def test_json_has_the_whole_card_of_the_same_federation_as_a_run(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from atoll.data.partition import iid

    check(file, columns=["text=body"], partition='{"num_clients": 4}', output_format=Format.json)
    card = json.loads(capsys.readouterr().out)
    run = load(file, columns={"text": "body"}, partition=iid(num_clients=4))
    assert card["fingerprint"] == run.fingerprint
    assert card["divided"] is True
    assert set(card["clients"]) == set(run.clients)
    assert card["labels"]["rows"] == {"even": card["train"] - card["labels"]["rows"]["odd"],
                                      "odd": card["labels"]["rows"]["odd"]}  # fmt: skip


def test_all_broken_lines_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\nbroken\n{"text": 3}\n{"txt": "a"}\n')
    with pytest.raises(DataError) as error:
        check(str(path))
    lines = str(error.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4"]
    assert "broken JSON" in lines[0]
    assert "not text" in lines[1]
    assert capsys.readouterr().out == ""


def test_of_very_many_faults_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n' + "".join(f'{{"text": {n}}}\n' for n in range(100)))
    with pytest.raises(DataError) as error:
        check(str(path))
    lines = str(error.value).splitlines()
    assert lines[-1] == f"and {100 - (len(lines) - 1)} more"


def test_what_is_wrong_beside_the_lines_is_told_too(tmp_path: Path) -> None:
    for client, row in (("ada", '{"text": "a"}'), ("bob", '{"text": "a", "label": "x"}')):
        (tmp_path / client).mkdir()
        (tmp_path / client / "train.jsonl").write_text(f"{row}\n")
    (tmp_path / "cy").mkdir()
    (tmp_path / "cy" / "train.jsonl").write_text("broken\n")
    with pytest.raises(DataError) as error:
        check(str(tmp_path))
    first, second = str(error.value).splitlines()
    assert "every client needs the same columns" in first
    assert "broken JSON" in second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["body"]}, "--columns is body; write NAME=COLUMN"),
        ({"columns": ["text="]}, "--columns is text=; write NAME=COLUMN"),
        ({"partition": "{"}, "--partition is not JSON"),
        ({"partition": "5"}, "data.partition is 5: expected a name"),
        ({"partition": '{"name": "irid", "num_clients": 2}'}, 'did you mean "iid"?'),
        ({"partition": '{"num_clients": "two"}'}, "expected a whole number"),
    ],
)
def test_wrong_options_are_refused(file: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?").replace("{", r"\{")):
        check(file, **options)  # type: ignore[arg-type]


def test_a_path_that_leads_nowhere_is_refused_as_in_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError) as ours:
        check(str(tmp_path / "gone.jsonl"))
    with pytest.raises(DataError) as theirs:
        load(str(tmp_path / "gone.jsonl"))
    assert str(ours.value) == str(theirs.value)
    with pytest.raises(ConfigError, match="text that is not empty"):
        check("")
