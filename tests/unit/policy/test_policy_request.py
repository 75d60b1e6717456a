"""Every rule about what a site takes part in, refused and allowed at its edge."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.packaged import find_recipe, names
from atoll.config import Experiment, load
from atoll.config.call import CALLS, LISTS
from atoll.config.tasks import TASKS
from atoll.errors import PolicyError
from atoll.policy import (
    PAUSED,
    Policy,
    check_cohort,
    check_experiment,
    check_model,
    check_now,
    load_policy,
    paused,
)
from atoll.runtimes.messages import broken, error_of

BASE, OTHER = "a" * 64, "b" * 64
LABELLED = "model: {name_or_path: m}\ndata: {path: d, labels: [sick, well]}\n"
NAMES = itertools.count()


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asked(*overrides: str, text: str = LABELLED) -> Experiment:
    Path("e.yaml").write_text(text, encoding="utf-8")
    return load("e.yaml", overrides=overrides).experiment


def policy(text: str = "") -> Policy:
    if not text:
        return load_policy(None)
    file = Path(f"policy{next(NAMES)}.yaml")
    file.write_text(text, encoding="utf-8")
    return load_policy(file)


def allowed(rules: str, *overrides: str, base: str | None = None, rows: int | None = None) -> None:
    check_experiment(policy(rules), asked(*overrides), base=base, rows=rows)


def refusal(
    rules: str, *overrides: str, base: str | None = None, rows: int | None = None
) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        check_experiment(policy(rules), asked(*overrides), base=base, rows=rows)
    return caught.value


def test_a_refusal_names_its_rule_and_its_site() -> None:
    error = refusal("max_rounds: 19")
    why = "federation.num_rounds is 20; this site takes part in at most 19"
    assert (error.rule, error.why, error.site) == ("max_rounds", why, "")
    assert str(error) == f"policy rule 'max_rounds': {why}"
    here = error.of("hospital-a")
    assert str(here) == f"policy rule 'max_rounds' of hospital-a: {why}"
    assert (here.rule, here.site, here.exit_code) == ("max_rounds", "hospital-a", 9)


def test_max_rounds() -> None:
    allowed("max_rounds: 20")
    allowed("max_rounds: null", "federation.num_rounds=100000")


def test_a_refusal_that_came_over_the_wire_is_the_same_and_still_names_its_rule() -> None:
    sent = broken(refusal("max_rounds: 19").of("hospital-a"))
    came = error_of(sent, worker="hospital-a")
    assert isinstance(came, PolicyError)
    assert came.rule == "max_rounds"
    assert "policy rule 'max_rounds' of hospital-a: federation.num_rounds is 20" in str(came)
    assert PolicyError("nothing of the kind").rule == ""


@pytest.mark.parametrize("task", TASKS)
def test_the_default_policy_lets_every_task_train(task: str) -> None:
    facts = TASKS[task]  # type: ignore[index]
    unnamed = () if facts.head and not facts.numbers else ("data.labels=null",)
    check_experiment(policy(), asked(f"model.task={task}", *unnamed), base=BASE, rows=20)


@pytest.mark.parametrize("recipe", names())
def test_the_default_policy_lets_every_recipe_run_whose_labels_are_given(recipe: str) -> None:
    text = find_recipe(recipe).read_text(encoding="utf-8")
    facts = TASKS[asked(text=text).model.task]
    given = ("data.labels=[sick, well]",) if facts.head else ()
    check_experiment(policy(), asked(*given, text=text), base=BASE, rows=20)


def test_tasks() -> None:
    allowed("tasks: [classification]")
    assert refusal("tasks: [causal-lm, regression]").why == (
        "model.task is classification; this site takes part in causal-lm, regression"
    )


def test_algorithms_built_in_and_listed() -> None:
    everything = ("federation.stages=[uniform, {name: clip, norm: 1}]", "federation.server=adam")
    allowed("", "federation.algorithm=fedprox", *everything, "federation.aggregator=mean")
    allowed("algorithms: [fedprox]", "federation.algorithm={name: fedprox, mu: 0.1}")
    error = refusal("algorithms: [fedavg, fedprox]", "federation.algorithm=scaffold")
    assert error.rule == "algorithms"
    assert error.why == "federation.algorithm is scaffold; this site allows fedavg, fedprox"


@pytest.mark.parametrize(
    ("key", "value"),
    [("federation.stages", "[uniform]"), ("federation.aggregator", "median"),
     ("federation.broadcast_stages", "[quantise]"), ("federation.server", "adam")],
)  # fmt: skip
def test_every_part_of_a_round_has_to_be_listed(key: str, value: str) -> None:
    name = value.strip("[]")
    allowed(f"algorithms: [fedavg, {name}]", f"{key}={value}")
    error = refusal("algorithms: [fedavg]", f"{key}={value}")
    assert (error.rule, error.why.split()[2]) == ("algorithms", f"{name};")


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, "os:system") for key in sorted(CALLS)]
    + [(key, "[uniform, os:system]") for key in sorted(LISTS)],
)
def test_foreign_functions_need_the_sites_word_wherever_they_stand(key: str, value: str) -> None:
    for rules in ("", "algorithms: [built-in, os:path]", "algorithms: [fedavg, uniform, system]"):
        assert refusal(rules, f"{key}={value}").rule == "algorithms"
    allowed("algorithms: [built-in, os:system]", f"{key}={value}")


def test_where_clients_run_and_how_a_simulation_divides_is_no_matter_of_a_site() -> None:
    allowed(
        "algorithms: [fedavg]", "federation.runtime=processes", "data.partition={num_clients: 3}"
    )


def test_base_models() -> None:
    allowed("", base=BASE)
    allowed(f"base_models: [{OTHER}, {BASE}]", base=BASE)
    error = refusal(f"base_models: [{OTHER}]", base=BASE)
    assert error.rule == "base_models"
    assert BASE in error.why
    # Before the model is loaded, nothing is known of its weights.
    allowed(f"base_models: [{OTHER}]", base=None)


@pytest.mark.parametrize(
    ("rules", "named", "taken"),
    [
        ("", "builtin:minilm", True),
        ("", "distilbert/distilgpt2", True),
        ("", "gpt2", True),
        ("", "/srv/models/secret", False),
        ("", "./model", False),
        ("", "~/model", False),
        ("", "some/where/else", False),
        # There are folders of these names here: that is what would be loaded.
        ("", "here", False),
        ("", "here/model", False),
        ("models: [hub]", "here/model", False),
        ("models: [here/model]", "here/model", False),
        ("models: [builtin]", "gpt2", False),
        ("models: [hub]", "builtin:minilm", False),
        ('models: "distilbert/*"', "distilbert/distilgpt2", True),
        ('models: "distilbert/*"', "gpt2", False),
        ('models: "builtin:m*"', "builtin:minilm", True),
        ('models: "builtin:m*"', "builtin:smollm2", False),
        ("models: any", "/srv/models/secret", True),
    ],
)
def test_models_that_a_federation_may_name(rules: str, named: str, taken: bool) -> None:
    Path("here/model").mkdir(parents=True)
    if taken:
        check_model(policy(rules), named)
        return
    with pytest.raises(PolicyError, match=r"model\.name_or_path is ") as caught:
        check_model(policy(rules), named)
    assert caught.value.rule == "models"


def test_a_folder_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "open" / "one").mkdir(parents=True)
    (tmp_path / "shut").mkdir()
    (tmp_path / "open" / "link").symlink_to(tmp_path / "shut")
    rules = policy(f'models: "{tmp_path}/open/*"')
    check_model(rules, str(tmp_path / "open" / "one"))
    check_model(rules, "./open/one")
    for named in ("open/../shut", "open/link", str(tmp_path / "open" / "link"), "/etc"):
        with pytest.raises(PolicyError):
            check_model(rules, named)


def test_remote_code() -> None:
    allowed("remote_code: true", "model.trust_remote_code=true")
    assert refusal("", "model.trust_remote_code=true").rule == "remote_code"


def test_min_rows_does_not_tell_how_many_there_are() -> None:
    allowed("", rows=20)
    allowed("min_rows: 0", rows=0)
    allowed("", rows=None)
    error = refusal("", rows=19)
    assert (error.rule, error.why) == (
        "min_rows", "this site has fewer than 20 training rows for the run",
    )  # fmt: skip


def test_a_full_model_needs_everything() -> None:
    allowed('tensors: ["*"]', "adapter.method=full", "adapter.head=train")
    for rules in ("", 'tensors: [blocks, heads, statistics, "*.weight"]'):
        error = refusal(rules, "adapter.method=full", "adapter.head=train")
        assert error.rule == "tensors"
        assert error.why.startswith("adapter.method is full, and a full model may not leave")


def test_statistics_of_a_head_that_is_solved() -> None:
    allowed("tensors: [adapters, heads]", "adapter.head=train")
    allowed('tensors: [adapters, "statistics.*"]')
    assert refusal("tensors: [adapters, heads]").rule == "tensors"


def test_label_names() -> None:
    allowed("label_names: true", "data.labels=null")
    allowed("", "data.labels=null", "model.task=regression")
    allowed("", "data.labels=null", "model.task=causal-lm")
    for task in ("classification", "token-classification", "multi-label-classification"):
        error = refusal("", "data.labels=null", f"model.task={task}")
        assert (error.rule, "data.labels" in error.why) == ("label_names", True)


def test_label_histograms() -> None:
    held = "label_histograms: false"
    allowed(held, "adapter.head=train")
    allowed(held, "adapter.head=train", "train.class_weights=balanced-per-client")
    allowed(held, "model.task=causal-lm", "data.labels=null")
    allowed("", "train.class_weights=balanced")
    for overrides in ((), ("adapter.head=ridge",), ("adapter.head=logistic",)):
        assert refusal(held, *overrides).rule == "label_histograms"
    weighted = refusal(held, "adapter.head=train", "train.class_weights=balanced")
    assert weighted.rule == "label_histograms"
    assert "balanced-per-client" in weighted.why


PRIVATE = ("privacy.epsilon=8", "privacy.clip=0.5", "adapter.head=train")


def test_required_privacy_is_asked_of_a_run() -> None:
    error = refusal("privacy: {required: true}")
    assert error.rule == "privacy"
    assert error.why == (
        "this site asks for differential privacy, and the run has no privacy section"
    )
    allowed("privacy: {required: false}")
    allowed("privacy: {required: true}", *PRIVATE)


def test_the_bounds_of_a_run_are_held_to_the_sites() -> None:
    allowed("privacy: {required: true, max_clip: 0.5}", *PRIVATE)
    assert (
        "cuts updates to 0.5; this site asks for 0.4 at most"
        in refusal("privacy: {required: true, max_clip: 0.4}", *PRIVATE).why
    )
    moving = "privacy.clip={adaptive: true, initial: 0.1, most: 0.3}"
    allowed("privacy: {required: true, max_clip: 0.3}", *PRIVATE, moving)
    assert (
        "cuts updates to 0.3"
        in refusal("privacy: {required: true, max_clip: 0.2}", *PRIVATE, moving).why
    )
    noise = "privacy.noise_multiplier=0.9"
    allowed("privacy: {required: true, min_noise_multiplier: 0.9}", *PRIVATE, noise)
    assert (
        "multiplier is 0.9; this site asks for 1"
        in refusal("privacy: {required: true, min_noise_multiplier: 1}", *PRIVATE, noise).why
    )


@pytest.mark.parametrize(
    ("now", "opens"),
    [("19:59", "20:00"), ("20:00", None), ("23:59", None), ("00:00", None), ("05:59", None),
     ("06:00", "12:00"), ("12:30", None), ("13:00", "20:00")],
)  # fmt: skip
def test_hours(now: str, opens: str | None) -> None:
    rules = policy('hours: ["20:00-06:00", "12:00-13:00"]')
    moment = datetime.fromisoformat(f"2026-03-29T{now}:59")
    if opens is None:
        check_now(rules, moment)
        return
    with pytest.raises(PolicyError) as caught:
        check_now(rules, moment)
    assert str(caught.value) == (
        f"policy rule 'hours': training may run in 20:00-06:00, 12:00-13:00, and it is {now} at "
        f"this site; it may again from {opens}"
    )


def test_without_hours_training_may_always_run() -> None:
    for hour in range(24):
        check_now(policy(), datetime(2026, 1, 1, hour))


def test_min_cohort_is_about_secure_sums() -> None:
    check_cohort(policy(), 5)
    with pytest.raises(PolicyError) as caught:
        check_cohort(policy(), 4)
    assert caught.value.rule == "min_cohort"


def test_a_pause_is_a_file_and_what_cannot_be_seen_is_one(tmp_path: Path) -> None:
    assert not paused(tmp_path)
    assert not paused(tmp_path / "not-yet")
    switch = tmp_path / PAUSED
    switch.touch()
    assert paused(tmp_path)
    switch.unlink()
    assert not paused(tmp_path)
    switch.symlink_to("nowhere")
    assert paused(tmp_path)
    file: Any = tmp_path / "file"
    file.touch()
    assert paused(file)
