"""Numbers about privacy that are out of all proportion: a message at once, or a right result."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from atoll.cli.app import guarded
from tests.support.federation import LABELS, labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import write_clients

NOISE = "privacy.epsilon=null privacy.noise_multiplier="
ADAPTIVE = "privacy.clip={{adaptive: true, {}}}"


@pytest.fixture
def file(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_clients(tmp_path / "data", labelled_rows())
    (tmp_path / "here.yaml").write_text(
        f"model: {{name_or_path: {zoo('bert')}, pooling: mean}}\n"
        f"data: {{path: data, max_length: 8, labels: [{', '.join(LABELS)}]}}\n"
        "adapter: {method: none, head: train}\n"
        "federation: {num_rounds: 2, clients_per_round: 2}\n"
        "privacy: {epsilon: 8, clip: 0.5}\n"
        "evaluate: {baselines: []}\n"
    )
    return "here.yaml"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("privacy.epsilon=1e300", "privacy.epsilon is 1e+300; expected a number greater than 0"),
        ("privacy.delta=0.1", "privacy.delta is 0.1; expected a number of at least 1e-12 and less"),
        ("privacy.delta=1e-300", "privacy.delta is 1e-300; expected a number of at least 1e-12"),
        (f"{NOISE}1e-8", "privacy.noise_multiplier is 1e-08, and so little noise is lost"),
        (f"{NOISE}1e-8 privacy.unit=example", "privacy.noise_multiplier is 1e-08, and so little"),
        (f"{NOISE}1e300", "privacy.noise_multiplier is 1e+300; expected a number of at least 0"),
        ("privacy.clip=1e300", "privacy.clip is 1e+300; expected a number of at least 1e-09 and"),
        ("privacy.clip=1e-300", "privacy.clip is 1e-300; expected a number of at least 1e-09 and"),
        (ADAPTIVE.format("quantile: 2"), "privacy.clip.quantile is 2; expected a number greater"),
        (ADAPTIVE.format("quantil: 0.5"), 'unknown key "quantil" in privacy.clip; did you mean'),
        (ADAPTIVE.format("initial: 1e300"), "privacy.clip.initial is 1e+300; expected a number"),
        ("privacy.clip={quantile: 0.5}", "privacy.clip.adaptive is missing; it is the switch"),
        ("privacy.clip={adaptive: false}", "privacy.clip.adaptive is false; expected true"),
    ],
)
def test_what_no_run_could_keep_is_refused_by_name(
    values: str, words: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [values] if values.startswith("privacy.clip={") else values.split()
    assert guarded(["plan", file, *parts]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("privacy.epsilon=100", "epsilon 99."),
        ("privacy.epsilon=1000", "epsilon 99"),
        ("privacy.delta=0.09", "epsilon 7.99"),
        ("federation.num_rounds=0", "epsilon 0 after all rounds"),
        ("federation.num_rounds=0 privacy.unit=example", "epsilon 0 after all rounds"),
        (f"{NOISE}1e-6", "epsilon without bound after all rounds"),
        (f"{NOISE}1e-6 privacy.unit=example", "a privacy.noise_multiplier of 1e-06 hides no row"),
        (f"{NOISE}0", "warning: a privacy.noise_multiplier of 0 hides no client"),
        (f"{NOISE}1e6 privacy.clip=1e9", "epsilon 0 after all rounds"),
        (
            "privacy.mechanism=blt privacy.sampling=turns federation.num_rounds=9",
            "after all rounds, zero-out, closed form",
        ),
        ("privacy.unit=example", "after all rounds, zero-out, "),
    ],
)
def test_what_is_odd_is_planned_as_it_is(
    values: str, words: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.process_time()
    assert guarded(["plan", file, *values.split()]) == 0
    assert time.process_time() - began < 60
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "values", ["privacy.noise_multiplier=0", "privacy.noise_multiplier=1e-6 privacy.unit=example"]
)
def test_a_run_without_noise_says_so_first_and_last(
    values: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(["run", file, "privacy.epsilon=null", "output_dir=run", *values.split()]) == 0
    said = capsys.readouterr()
    assert "hides no " in (said.out + said.err).partition("round 1")[0]
    assert guarded(["privacy", "verify", "run"]) == 0
    assert "come to epsilon without bound" in capsys.readouterr().out


def test_a_bound_that_would_leave_all_floats_is_the_largest(file: str) -> None:
    clip = ADAPTIVE.format("initial: 1e9, learning_rate: 10, count_noise: 1e9")
    assert guarded(["run", file, clip, "privacy.epsilon=20", "output_dir=run"]) == 0
