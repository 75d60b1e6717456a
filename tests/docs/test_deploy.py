"""What deploy/ holds is accepted by the tools that read it: nothing here is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.pages import ROOT
from tests.support.shells import understood

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "atoll"
SERVER = {"enabled": True, "experiment": "model: {name_or_path: m}\n", "model": "weights",
          "set": ["federation.num_rounds=3"]}  # fmt: skip
SITE = {"enabled": True, "connect": "fl.example.org:443", "data": "rows", "model": "weights",
        "modelPath": "minilm", "policy": "min_rows: 50\n", "set": ["train.device=cpu"]}  # fmt: skip
Thing = dict[str, Any]


def _tool(*words: str, cwd: Path = DEPLOY) -> None:
    """Have a tool look at something, where it is installed."""
    found = shutil.which(words[0]) or shutil.which(words[0], path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"no {words[0]} here")
    done = subprocess.run([found, *words[1:]], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _secured(pod: Thing) -> None:
    """As the standard `restricted` of Kubernetes asks, under a root that is read-only."""
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} == container["resources"].keys()
        writable = {one["name"] for one in container["volumeMounts"] if not one.get("readOnly")}
        assert writable <= {"runs", "state", "tmp"}


def test_the_image_is_built_as_hadolint_likes_it() -> None:
    _tool("hadolint", "Dockerfile")


def test_the_image_runs_as_nobody_and_holds_what_is_listed() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001:10001"]
    copied = {word for line in lines if line.startswith("COPY ") and "--from" not in line
              for word in line.split()[1:-1]}  # fmt: skip
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_has_the_torch_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = [one for one in project["dependencies"] if one.startswith("torch>")]
    assert f'"{torch}"' in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_the_compose_file_is_one() -> None:
    compose_spec = pytest.importorskip("compose_spec")
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", text))
    compose = compose_spec.PyCompose.from_json(json.dumps(found))
    compose.validate()
    assert set(found["services"]) == {"server", "site-a", "site-b"}
    for name, service in found["services"].items():
        understood(service["command"])
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["networks"] == ["federation"]
        own = "server" if name == "server" else name
        mounted = [volume for volume in service["volumes"] if volume.startswith("./")]
        assert all(volume.endswith(":ro") for volume in mounted)
        assert [one for one in mounted if "federation/" in one] == [f"./federation/{own}:/certs:ro"]
    assert found["networks"] == {"federation": {"internal": True}}


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(str(CHART)) as found:
        yield found


def _rendered(chart: Any, values: Mapping[str, Any]) -> list[Thing]:
    """The objects that an installation would send, each one that Kubernetes knows."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    chart.validate_schema(dict(values))
    texts = chart.render(dict(values), name="fl", namespace="federation")
    found = [one for name, text in texts.items() if name.endswith(".yaml")
             for one in yaml.safe_load_all(text) if one]  # fmt: skip
    for one in found:
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    return found


def _kinds(found: list[Thing]) -> dict[str, Thing]:
    return {one["kind"]: one for one in found}


def test_the_chart_passes_helms_own_lint(chart: Any) -> None:
    helm = pytest.importorskip("helm_python")
    said = helm.lint(str(CHART))
    assert said["errors"] == []
    assert [one["error"] for one in said["messages"]] == ["icon is recommended"]


def test_a_server_in_the_cluster(chart: Any) -> None:
    found = _rendered(chart, {"server": SERVER})
    kinds = _kinds(found)
    assert kinds.keys() == {"ConfigMap", "PersistentVolumeClaim", "Service", "Job", "NetworkPolicy"}
    pod = kinds["Job"]["spec"]["template"]["spec"]
    _secured(pod)
    (container,) = pod["containers"]
    understood(container["args"])
    assert container["args"][1:2] == ["/config/experiment.yaml"]
    assert kinds["ConfigMap"]["data"]["experiment.yaml"].strip() == SERVER["experiment"].strip()
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    labels = kinds["Job"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"] == labels
    rules = kinds["NetworkPolicy"]["spec"]
    assert rules["podSelector"]["matchLabels"] == labels
    assert rules["egress"] == []
    assert [one["ports"] for one in rules["ingress"]] == [[{"port": 9092, "protocol": "TCP"}]]


def test_a_server_that_sleeps_so_that_results_can_be_fetched(chart: Any) -> None:
    kinds = _kinds(_rendered(chart, {"server": {**SERVER, "idle": True}}))
    (container,) = kinds["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sleep", "infinity"]
    assert "livenessProbe" not in container


def test_a_site_in_the_cluster_goes_out_and_nobody_comes_in(chart: Any) -> None:
    found = _rendered(chart, {"site": SITE})
    kinds = _kinds(found)
    assert kinds.keys() == {"ConfigMap", "Service", "StatefulSet", "NetworkPolicy"}
    spec = kinds["StatefulSet"]["spec"]
    pod = spec["template"]["spec"]
    _secured(pod)
    (container,) = pod["containers"]
    understood(container["args"])
    assert "ports" not in container
    assert {"startupProbe", "livenessProbe"} <= container.keys()
    assert spec["replicas"] == 1
    assert [one["metadata"]["name"] for one in spec["volumeClaimTemplates"]] == ["state"]
    rules = kinds["NetworkPolicy"]["spec"]
    assert rules["policyTypes"] == ["Ingress", "Egress"]
    assert rules["ingress"] == []
    assert [one["port"] for rule in rules["egress"] for one in rule["ports"]] == [53, 53, 443]


def test_a_site_without_a_policy_takes_the_default(chart: Any) -> None:
    kinds = _kinds(_rendered(chart, {"site": {**SITE, "policy": "", "model": ""}}))
    assert "ConfigMap" not in kinds
    (container,) = kinds["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert not any(word.startswith(("--policy", "--model")) for word in container["args"])


def test_the_chart_makes_no_secret_and_nothing_unasked(chart: Any) -> None:
    assert _rendered(chart, {}) == []
    both = _rendered(chart, {"server": SERVER, "site": SITE})
    assert "Secret" not in {one["kind"] for one in both}


@pytest.mark.parametrize("values", [
    {"site": {"enabled": True, "connect": "fl.example.org:443"}},
    {"site": {**SITE, "connect": "fl.example.org"}},
    {"site": {**SITE, "set": ["--insecure"]}},
    {"server": {"enabled": True}},
    {"server": {**SERVER, "from": ["anywhere"]}},
    {"servers": {}},
])  # fmt: skip
def test_wrong_values_are_refused(chart: Any, values: Thing) -> None:
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError):
        chart.validate_schema(values)


@pytest.mark.parametrize("name", ["atoll-server", "atoll-client"])
def test_a_unit_is_what_systemd_reads(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / f"{name}.service").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    words = command.split()
    understood(words[1:])
    # The tool wants the program to be there.
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace(words[0], sys.executable), encoding="utf-8")
    _tool("systemd-analyze", "verify", "--man=no", str(unit))


def test_the_proxy_that_passes_tls_through_is_what_haproxy_reads() -> None:
    _tool("haproxy", "-c", "-f", "proxy/haproxy.cfg")
