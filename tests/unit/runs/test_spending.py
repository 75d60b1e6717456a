"""What stands in a ledger before anyone is asked, and when nobody is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

from atoll.accounting import Everyone
from atoll.config.privacy import Privacy
from atoll.errors import PrivacyError
from atoll.ledger import Ledger
from atoll.noise import Secret
from atoll.protection import Protection
from atoll.protection.cohorts import Drawing
from atoll.runs.spending import Spending


def _gaussian(rounds: int) -> float:
    return float(get_epsilon_gaussian(2.0 / rounds**0.5, 1e-5))


@pytest.fixture
def spending(tmp_path: Path) -> Iterator[Spending]:
    """Of a run with room for two rounds."""
    settings = Privacy(noise_multiplier=2.0, epsilon=_gaussian(2) + 0.01, sampling="everyone")
    protection = Protection(settings, Drawing(10, 10.0, Everyone()), 5)
    with Ledger.opened(tmp_path / "ledger", data="rows") as ledger:
        secret = Secret(tmp_path / "secret")
        yield Spending("run", frozenset(), False, protection, ledger, secret)


def test_nobody_is_asked_for_a_round_that_there_is_no_room_for(spending: Spending) -> None:
    spending.begins(0)
    for number in (1, 2):
        assert spending.exhausted() is None
        spending.asking(number, number)
        assert spending.epsilon() == pytest.approx(_gaussian(number))
    # A kill may have come before its answers: it is paid for.
    spending.asking(2, 2)
    for _ in range(2):
        with pytest.raises(PrivacyError, match=r"round 3 would spend more than privacy\.epsilon"):
            spending.asking(3, 3)
    assert spending.epsilon() == pytest.approx(_gaussian(2))
    assert [one.exchange for one in spending.ledger.told.once] == [1, 2]


def test_a_run_whose_releases_are_not_written_down_does_not_go_on(spending: Spending) -> None:
    why = "no release of {} of this run, of which 2 rounds are over: what was spent is no longer"
    with pytest.raises(PrivacyError, match=why.format("2 rounds")):
        spending.begins(2)
    spending.begins(0)
    spending.asking(1, 1)
    spending.begins(1)
    # A ledger of before the second round, put back from a backup.
    with pytest.raises(PrivacyError, match=why.format("1 round")):
        spending.begins(2)
    spending.asking(2, 2)
    spending.begins(1)
    spending.begins(2)
