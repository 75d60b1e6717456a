"""What is written is read back, for any experiment."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from atoll.config import Adapter, Call, Data, Evaluate, Experiment, Federation, Model, Train
from atoll.config.source import dump, load
from atoll.config.yaml_text import parse, write

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
tricky = st.sampled_from(["1e-3", "no", "null", "~", "", "010", "1:30", ".inf", "a: b", "#", "<<"])
words = text | tricky.filter(bool)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)
share = st.floats(min_value=0, max_value=1, exclude_max=True)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text | tricky
values: st.SearchStrategy[JsonValue] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
calls = st.builds(
    Call,
    words,
    st.dictionaries(words.filter(lambda key: key != "name"), values, max_size=3),
)
experiments = st.builds(
    Experiment,
    model=st.builds(
        Model, name_or_path=words, revision=st.none() | words, normalize=st.none() | st.booleans()
    ),
    data=st.builds(
        Data,
        path=words,
        columns=st.dictionaries(words, words, max_size=3),
        holdout=share,
        labels=st.none()
        | st.lists(text | tricky.filter(bool), min_size=1, max_size=3, unique=True).map(tuple),
    ),
    adapter=st.builds(
        Adapter,
        r=st.integers(1, 64),
        lora_alpha=positive,
        target_modules=st.just("all-linear") | st.lists(words, min_size=1, max_size=3).map(tuple),
        head=st.sampled_from([None, "lda", "ridge", "means", "logistic", "train"]),
    ),
    train=st.builds(
        Train,
        learning_rate=positive,
        max_grad_norm=st.none() | positive,
        group_size=st.just("auto") | st.integers(1, 9),
    ),
    federation=st.builds(
        Federation,
        num_rounds=st.integers(0, 10**20),
        algorithm=calls,
        stages=st.lists(calls, max_size=2).map(tuple),
        server=st.none() | calls,
    ),
    evaluate=st.builds(Evaluate, baselines=st.sampled_from([(), ("local",), ("pooled", "local")])),
    seed=st.integers(0, 2**63 - 1),
    output_dir=words,
)


@settings(max_examples=150, deadline=None)
@given(experiments)
def test_an_experiment_is_read_back(experiment: Experiment) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.yaml"
        path.write_text(dump(experiment), encoding="utf-8", newline="")
        again = load(path)
    assert again.experiment == experiment
    assert dump(again.experiment) == dump(experiment)


@settings(max_examples=150, deadline=None)
@given(values)
def test_any_values_are_read_back(value: JsonValue) -> None:
    assert parse(write(value), at=str).tree == value
