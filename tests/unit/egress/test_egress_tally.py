"""How much has left, as the record goes on."""

from __future__ import annotations

from pathlib import Path

from atoll.egress.tally import Tally
from tests.support.departures import departure, open_record, site


def test_messages_and_bytes_are_those_of_the_record_over_all_its_files(tmp_path: Path) -> None:
    tally, sizes = Tally(tmp_path), [len(departure(number).data) for number in range(30)]  # type: ignore[arg-type]
    assert tally.now() == {"messages": 0, "bytes": 0, "last": []}
    with open_record(tmp_path, site("hospital-a"), large=3_000) as record:
        for number in range(30):
            record.append(departure(number))
            found = tally.now()
            assert (found["messages"], found["bytes"]) == (number + 1, sum(sizes[: number + 1]))
    assert len(list(tmp_path.glob("egress-*.jsonl"))) > 2
    assert [one["round"] for one in found["last"]] == [number // 2 for number in range(18, 30)]
    assert Tally(tmp_path).now() == found


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    with open_record(tmp_path, site("hospital-a")) as record:
        record.append(departure(0))
    file = tmp_path / "egress-0001.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    tally = Tally(tmp_path)
    assert tally.now()["messages"] == 0
    file.write_bytes(whole)
    assert tally.now()["messages"] == 1
