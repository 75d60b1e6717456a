"""Policies from files, hostile ones too, and in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import ConfigError
from atoll.policy import Policy, describe, fingerprint, load_policy, policy_schema

FINGERPRINT = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str) -> Policy:
    Path("policy.yaml").write_text(text, encoding="utf-8")
    return load_policy(Path("policy.yaml"))


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.exit_code == 2
    return str(caught.value).split("\n")


def test_a_file_with_every_rule() -> None:
    policy = read(
        f"""
tasks: [classification, regression]
algorithms: [fedavg, my_site.methods:ours]
models: [builtin, "ours/*"]
base_models: ["{FINGERPRINT}"]
remote_code: true
max_payload: 1.5GB
tensors: [adapters, "model.norm.*"]
min_cohort: 10
privacy: {{required: true, max_clip: 1, min_noise_multiplier: 0.5, lifetime_epsilon: 8}}
min_rows: 0
metrics: false
label_names: true
label_histograms: false
error_texts: true
hours: ["20:00-06:00", "12:00-13:00"]
max_rounds: 50
"""
    )
    assert policy.tasks == ("classification", "regression")
    assert policy.algorithms == ("fedavg", "my_site.methods:ours")
    assert policy.models == ("builtin", "ours/*")
    assert policy.base_models == (FINGERPRINT,)
    assert policy.max_payload == 1_500_000_000
    assert policy.tensors == ("adapters", "model.norm.*")
    assert policy.privacy.model_dump() == {
        "required": True, "max_clip": 1, "min_noise_multiplier": 0.5, "lifetime_epsilon": 8,
    }  # fmt: skip
    assert (policy.min_cohort, policy.min_rows, policy.max_rounds) == (10, 0, 50)
    assert (policy.remote_code, policy.metrics) == (True, False)
    assert (policy.label_names, policy.label_histograms, policy.error_texts) == (True, False, True)
    assert policy.hours == ("20:00-06:00", "12:00-13:00")


def test_one_value_stands_for_a_list_of_it() -> None:
    policy = read('tasks: embedding\nalgorithms: fedavg\ntensors: heads\nhours: "8:00-9:00"')
    assert policy.tasks == ("embedding",)
    assert policy.algorithms == ("fedavg",)
    assert policy.tensors == ("heads",)
    assert policy.hours == ("8:00-9:00",)
    assert read("base_models: any\ntasks: any") == Policy()


def test_without_a_file_the_default_applies_and_is_conservative() -> None:
    policy = load_policy(None)
    assert policy == read("metrics: true")
    assert "*" not in policy.tensors
    assert policy.algorithms == ("built-in",)
    assert policy.models == ("builtin", "hub")
    assert not policy.remote_code
    assert not policy.label_names
    assert not policy.error_texts
    assert policy.max_payload == 64_000_000


def test_a_policy_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_policy(None).metrics = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_row: 5", 'policy.yaml:1: unknown key "min_row"; did you mean "min_rows"? Valid keys: '
                       + ", ".join(Policy.model_fields)),
        ("metrics: true\nprivacy:\n  require: true",
         'policy.yaml:3: unknown key "require" in privacy; did you mean "required"? Valid keys: '
         "required, max_clip, min_noise_multiplier, lifetime_epsilon"),
        ("tasks: [clasification]", 'policy.yaml:1: tasks.0 is "clasification"; expected one of '
         "classification, causal-lm, masked-lm, token-classification, regression, "
         "multi-label-classification, image-classification, embedding, preference, or any; did you "
         'mean "classification"?'),
        ("metrics: yes", 'policy.yaml:1: metrics is "yes"; expected true or false'),
        ("min_rows: -1", "policy.yaml:1: min_rows is -1; expected a whole number of at least 0"),
        ("min_cohort: 1", "policy.yaml:1: min_cohort is 1; expected a whole number of at least 2"),
        ("max_payload: 64M", 'policy.yaml:1: max_payload is "64M": write bytes, or a number with '
         "kB, MB, GB, TB, KiB, MiB, GiB or TiB"),
        ("max_payload: 0", "policy.yaml:1: max_payload is 0; expected a whole number of at least "
         "1, or text"),
        ("max_payload: 0MB", 'policy.yaml:1: max_payload is "0MB"; expected a whole number of at '
         "least 1, or text"),
        ("max_payload: true", "policy.yaml:1: max_payload is true; expected a whole number of at "
         "least 1, or text"),
        ("hours: 25:00-06:00", 'policy.yaml:1: hours is "25:00-06:00": a day goes from 00:00 to '
         "24:00"),
        ('hours:\n- "20:00-06:00"\n- noon', 'policy.yaml:3: hours.1 is "noon": write a window of '
         'time as "20:00-06:00"'),
        ("base_models: [abc]", 'policy.yaml:1: base_models.0 is "abc": write any, or fingerprints: '
         "64 of the digits 0 to 9 and a to f, as fingerprints.base in a run's run.json"),
        ("tensors: [adapter]", 'policy.yaml:1: tensors.0 is "adapter": neither a pattern of names '
         'nor one of adapters, biases, blocks, heads, statistics; did you mean "adapters"?'),
        ("privacy: {max_clip: 1}", "policy.yaml:1: privacy.max_clip is 1: nothing demands it; set "
         "privacy.required: true"),
        ("min_rows: 1\nmin_rows: 50", 'policy.yaml:2: "min_rows" stands twice, first at '
         "policy.yaml:1; keep one"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_told_with_its_line(text: str, message: str) -> None:
    assert refused(text) == [message]


@pytest.mark.parametrize(
    "rule",
    ["tasks", "algorithms", "base_models", "max_payload", "tensors", "min_cohort", "privacy",
     "min_rows", "metrics", "label_names", "label_histograms", "error_texts",
     "remote_code"],
)  # fmt: skip
def test_a_rule_whose_values_are_commented_out_does_not_open_the_site(rule: str) -> None:
    (line,) = refused(f"{rule}:\n  # - something")
    assert line.startswith(f"policy.yaml:1: {rule} is null; expected ")


@pytest.mark.parametrize("rule", ["tasks", "algorithms", "base_models", "tensors", "hours"])
def test_an_empty_list_is_refused(rule: str) -> None:
    assert refused(f"{rule}: []")[0].startswith(f"policy.yaml:1: {rule} is []")


def test_all_problems_are_told_at_once_in_the_order_of_their_lines() -> None:
    lines = refused("metrics: 1\nmax_rounds: x\nown: 2\nmin_rows: -1")
    assert [line.partition(": ")[0] for line in lines] == [f"policy.yaml:{i}" for i in range(1, 5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "policy.yaml: the file is empty; leave it out for the default policy, or name a rule"),
        ("- a", 'policy.yaml:1: the file is ["a"]; expected rules: tasks, algorithms, '
         "models, ..."),
        ("a: &x 1\nb: *x", "policy.yaml:2: *x is an alias; write its value instead"),
        ("a: !!python/object/apply:os.system [x]", "policy.yaml:1: the tag "
         "tag:yaml.org,2002:python/object/apply:os.system is not read; remove it"),
        ("max_payload: [1", "policy.yaml:1: broken YAML: while parsing a flow sequence, expected "
         "',' or ']', but got '<stream end>'"),
    ],
)  # fmt: skip
def test_hostile_yaml_is_a_sentence(text: str, message: str) -> None:
    assert refused(text) == [message]


def test_a_missing_file_names_its_neighbour() -> None:
    Path("policy.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        load_policy(Path("polcy.yaml"))
    assert str(caught.value) == "polcy.yaml: no such file; did you mean policy.yaml?"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(Policy.model_fields)) | st.text(), values))
def test_any_tree_is_a_policy_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    from atoll.config.yaml_text import write

    file = tmp_path_factory.mktemp("any") / "policy.yaml"
    file.write_text(write(tree), encoding="utf-8")
    try:
        policy = load_policy(file)
    except ConfigError:
        return
    assert tree.keys() <= Policy.model_fields.keys()
    # What a file leaves out is never looser than the default.
    kept = {name: value for name, value in policy.model_dump().items() if name not in tree}
    assert kept == {name: Policy().model_dump()[name] for name in kept}


def test_it_is_described_with_every_rule_in_a_line_that_a_file_may_hold() -> None:
    policy = read('max_payload: 2MB\nhours: "20:00-06:00"\nprivacy: {required: true, max_clip: 1}')
    lines = describe(policy).splitlines()
    assert [line.partition(":")[0] for line in lines] == list(Policy.model_fields)
    assert "max_payload: 2000000  # " in lines[5]
    assert read(describe(policy)) == policy
    assert read(describe(Policy())) == Policy()


def test_the_fingerprint_is_of_what_the_rules_say() -> None:
    policies = [Policy(), read("min_rows: 21"), read("metrics: false"), read("hours: 1:00-2:00")]
    assert len({fingerprint(policy) for policy in policies}) == len(policies)
    assert fingerprint(read("max_payload: 64MB")) == fingerprint(read("max_payload: 64000000"))
    assert fingerprint(Policy()) == fingerprint(read("min_rows: 20\n# a comment"))
    assert len(fingerprint(Policy())) == 64


def test_the_schema_knows_every_rule_and_the_short_forms() -> None:
    found = policy_schema()
    assert list(found["properties"]) == list(Policy.model_fields)
    assert found["additionalProperties"] is False
    for rule in ("algorithms", "tensors", "base_models", "max_payload", "hours"):
        kinds = found["properties"][rule]["anyOf"]
        assert any(kind.get("type") == "string" for kind in kinds)


def test_reading_a_policy_is_light() -> None:
    code = "import sys, atoll.policy; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert printed == "set()\n"
