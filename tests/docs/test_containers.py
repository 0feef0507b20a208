"""The files for containers are valid, agree with each other, and name what the real server has."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from benchmarks.scaling.scenarios import TARGETS as SIMULATED

from niruhybrid.config import ServerConfig
from niruhybrid.server.auth import find_key, parse_keys
from niruhybrid.settings import load_settings
from tests.docs.pages import ROOT
from tests.docs.test_blocks import parsed
from tools.reference import settings
from tools.reference_cli import command

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.33", "1.37")  # of Kubernetes: the oldest and the newest that the objects are for
NOT_OBJECTS = {"kustomization.yaml", "prometheus-adapter.yaml", "prometheus-scrape.yaml"}
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
ENTRYPOINT = DEPLOY / "docker" / "entrypoint.sh"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

BROKER = Path(sys.executable).parent / "nats-server"

Object = dict[str, Any]


def documents(path: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


COMPOSE = documents(DEPLOY / "compose" / "compose.yaml")[0]
OBJECTS = [
    each for path in sorted(KUBERNETES.glob("*.yaml")) if path.name not in NOT_OBJECTS for each in documents(path)
]
SERVICES: dict[str, Object] = COMPOSE["services"]


def of_kind(*kinds: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] in kinds}


PODS = {name: each["spec"]["template"]["spec"] for name, each in of_kind("Deployment", "StatefulSet").items()}
CONTAINERS = {name: pod["containers"][0] for name, pod in PODS.items()}
NATS = {
    "compose": (DEPLOY / "compose" / "nats.conf").read_text(encoding="utf-8"),
    "kubernetes": of_kind("ConfigMap")["nats"]["data"]["nats.conf"],
}
SETTINGS: dict[str, str] = of_kind("ConfigMap")["settings"]["data"]


def images() -> Iterator[str]:
    yield from (service["image"] for service in SERVICES.values())
    yield from (container["image"] for pod in PODS.values() for container in pod["containers"])


# --- valid ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", OBJECTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_kubernetes_takes_the_object(each: Object) -> None:
    assert [kubernetes_validate.validate(each, version, strict=True) for version in VERSIONS] == [*VERSIONS]


def test_an_object_with_a_field_that_is_not_there_is_noticed() -> None:
    wrong = json.loads(json.dumps(of_kind("Deployment")["server"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_compose_takes_the_file() -> None:
    schema = resources.files("check_jsonschema.builtin_schemas").joinpath("vendor", "compose-spec.json")
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    assert list(validator.iter_errors({"services": {"server": {"imagee": "niruhybrid"}}}))


def test_the_kustomization_has_every_object_but_the_secrets() -> None:
    listed = documents(KUBERNETES / "kustomization.yaml")[0]["resources"]
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - NOT_OBJECTS
    assert set(listed) == files - {"secrets.example.yaml"}
    assert {each["metadata"].get("namespace", "niruhybrid") for each in OBJECTS} == {"niruhybrid"}


# --- safe -----------------------------------------------------------------------------------------------------------


def test_every_image_is_pinned_and_ours_is_of_this_version() -> None:
    assert [image for image in images() if not re.fullmatch(r"[\w./-]+:\d[\w.-]*", image)] == []
    assert {image for image in images() if "niru" in image} == {f"niruhybrid:{PROJECT['version']}"}
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:3.12-slim"] * 2


def test_compose_and_kubernetes_run_the_same_images() -> None:
    assert {name: service["image"] for name, service in SERVICES.items()} == {
        name: container["image"] for name, container in CONTAINERS.items()
    }


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_has_limits_probes_and_no_more_rights_than_it_needs(name: str) -> None:
    pod, container = PODS[name], CONTAINERS[name]
    assert len(pod["containers"]) == 1
    assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # else a service's variables pass for settings
    volumes = [each["name"] for each in pod["volumes"]]
    if name in (sets := of_kind("StatefulSet")):
        volumes += [each["metadata"]["name"] for each in sets[name]["spec"]["volumeClaimTemplates"]]
    assert sorted(each["name"] for each in container["volumeMounts"]) == sorted(volumes)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_of_compose_has_limits_and_a_health_check_and_is_published_on_loopback_only(name: str) -> None:
    service = SERVICES[name]
    assert {"cpus", "memory", "pids"} == service["deploy"]["resources"]["limits"].keys()
    assert service["healthcheck"]["test"][0] == "CMD"
    assert [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")] == []
    assert [each for each in service.get("environment", {}) if re.search("(PASSWORD|SECRET|KEYS|URL)$", each)] == []


def test_what_a_service_of_compose_uses_is_declared() -> None:
    for service in SERVICES.values():
        named = {each if isinstance(each, str) else each["source"] for each in service.get("secrets", [])}
        assert named <= COMPOSE["secrets"].keys()
        assert set(service["networks"]) <= COMPOSE["networks"].keys()
        assert {each.split(":")[0] for each in service.get("volumes", [])} <= COMPOSE["volumes"].keys()
        assert service.get("depends_on", {}).keys() <= SERVICES.keys()
    assert all((DEPLOY / "compose" / each["file"]).is_file() for each in COMPOSE["configs"].values())
    assert "deploy/compose/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_no_secret_is_in_the_repository() -> None:
    for secret in of_kind("Secret").values():
        for value in secret["stringData"].values():
            assert "change-me" in value or "digest-of-the-secret" in value
    assert "secrets.example.yaml" not in documents(KUBERNETES / "kustomization.yaml")[0]["resources"]


def test_who_may_talk_to_whom_is_said_for_every_pod() -> None:
    policies = of_kind("NetworkPolicy")
    assert policies["nothing-else"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert CONTAINERS.keys() <= policies.keys()
    rules = [rule for each in policies.values() for way in ("ingress", "egress") for rule in each["spec"].get(way, ())]
    opened = {port["port"] for rule in rules for port in rule["ports"]}
    served = {port["containerPort"] for container in CONTAINERS.values() for port in container.get("ports", [])}
    assert opened - {53} == served - {8222}  # NATS' monitor is for the node's probes alone


# --- true -----------------------------------------------------------------------------------------------------------


def variables() -> Iterator[tuple[str, str]]:
    """Yield every variable for `niru`, with its value."""
    yield from SETTINGS.items()
    for service in SERVICES.values():
        yield from service.get("environment", {}).items()
    yield from re.findall(r"\b(NIRU_\w+)=(\S*)", DOCKERFILE)


def test_every_variable_is_a_setting(caplog: pytest.LogCaptureFixture) -> None:
    named = {name: value for name, value in variables() if name.startswith("NIRU_")}
    with caplog.at_level("WARNING"):
        loaded = load_settings(environ=named)
    assert caplog.messages == []
    assert loaded.store.path == "postgresql://niru@postgres:5432/niru"
    assert loaded.server.host == "0.0.0.0"  # noqa: S104  # of a container
    assert SERVICES["worker"]["environment"]["NIRU_STORE_PATH"] == SETTINGS["NIRU_STORE_PATH"]


def test_the_real_command_takes_the_arguments_that_containers_are_given() -> None:
    given = [service["command"] for name, service in SERVICES.items() if name in {"server", "worker"}]
    given += [CONTAINERS[name]["args"] for name in ("server", "worker")]
    given += [
        SERVICES["worker"]["healthcheck"]["test"][2:],
        CONTAINERS["worker"]["livenessProbe"]["exec"]["command"][1:],
    ]
    known = command().commands.keys()
    assert {words[0] for words in given} - known <= {"worker"}  # which a build without brokers has not
    for words in given:
        if words[0] in known:
            parsed(words)
    assert json.loads(re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)[-1]) == given[0]


def test_what_the_entrypoint_exports_is_a_setting() -> None:
    named = set(re.findall(r"\bNIRU_\w+", ENTRYPOINT.read_text(encoding="utf-8")))
    assert named <= {row.variable for table in settings().values() for row in table}


def test_ports_and_names_agree() -> None:
    port = int(SETTINGS["NIRU_SERVER_PORT"])
    assert port == ServerConfig().port == CONTAINERS["server"]["ports"][0]["containerPort"]
    assert f"EXPOSE {port}" in DOCKERFILE
    assert SERVICES["server"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    services = of_kind("Service")
    assert re.search(r"@(\w+):(\d+)/", SETTINGS["NIRU_STORE_PATH"]) is not None
    for name, service in services.items():
        selected = service["spec"]["selector"]["app.kubernetes.io/name"]
        exported = {each["name"] for each in CONTAINERS[selected]["ports"]}
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= exported, name
    assert {"postgres", "nats"} <= services.keys() & SERVICES.keys()
    for each in of_kind("Deployment", "StatefulSet", "PodDisruptionBudget").values():
        labels = each["spec"]["selector"]["matchLabels"]
        assert labels == {"app.kubernetes.io/name": each["metadata"]["name"]}


def test_probes_ask_for_paths_of_the_server() -> None:
    described = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    server = CONTAINERS["server"]
    paths = {kind: server[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert set(paths.values()) <= described.keys()
    assert "/readyz" in SERVICES["server"]["healthcheck"]["test"][-1]
    assert "/healthz" in DOCKERFILE


def test_who_is_told_to_stop_has_time_to() -> None:
    server = PODS["server"]
    told_after = server["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    seconds = server["terminationGracePeriodSeconds"] - told_after
    assert seconds >= 3 * 5  # uvicorn waits five for open streams; then the store is closed
    assert int(SERVICES["server"]["stop_grace_period"].removesuffix("s")) >= seconds
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= 30
    assert PODS["worker"]["terminationGracePeriodSeconds"] >= 30


def test_the_image_is_made_of_pinned_requirements_and_of_files_that_are_there() -> None:
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert [line for line in installs if not re.search(r"--require-hashes|--no-deps /dist/[*][.]whl", line)] == []
    copies = [line.split() for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)]
    copied = [word for words in copies for word in words[:-1] if not word.startswith("--")]
    assert len(copied) >= 8
    assert [word for word in copied if not (ROOT / word).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert [word for word in copied if not any(f"!{word}".startswith(line) for line in ignored)] == []
    assert "USER 10001:10001" in DOCKERFILE
    assert {PODS[name]["securityContext"]["runAsUser"] for name in ("server", "worker")} == {10001}


@pytest.mark.integration
def test_the_entrypoint_reads_secrets_from_files_and_hands_on_its_arguments(tmp_path: Path) -> None:
    niru = tmp_path / "niru"
    niru.write_text('#!/bin/sh\nprintf "%s|" "${PGPASSWORD-unset}" "${NIRU_WORKER_URL-unset}" "$@"\n', encoding="utf-8")
    niru.chmod(0o755)
    (tmp_path / "password").write_text("o'clock $HOME\n", encoding="utf-8")
    (tmp_path / "url").write_text("nats://niru:secret@nats:4222", encoding="utf-8")
    files = {"PGPASSWORD_FILE": str(tmp_path / "password"), "BROKER_URL_FILE": str(tmp_path / "url")}
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    said = [
        subprocess.run([ENTRYPOINT, "serve", "a b"], env=environ, capture_output=True, text=True, check=True).stdout
        for environ in (path | files, path)
    ]
    assert said == ["o'clock $HOME|nats://niru:secret@nats:4222|serve|a b|", "unset|unset|serve|a b|"]
    missing = subprocess.run([ENTRYPOINT], env=path | {"PGPASSWORD_FILE": "/no"}, capture_output=True, check=False)
    assert missing.returncode != 0


@pytest.mark.slow
@pytest.mark.integration
def test_secrets_are_made_that_server_broker_and_clients_take(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first, second = (
        subprocess.run([DEPLOY / "make-secrets.sh", folder], capture_output=True, check=False) for _ in "12"
    )
    assert first.returncode == 0, first.stderr
    assert second.returncode != 0  # those that are there stay
    made = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {Path(each["file"]).name for each in COMPOSE["secrets"].values()} <= made.keys()
    keys = parse_keys(made["api-keys"])
    for name in ("reader", "writer"):
        found = find_key(keys, made[f"{name}-key"].encode())
        assert found is not None
        assert found.name == name
    broker = re.fullmatch(r"nats://niru:(\S{32})@nats:4222", made["broker-url"])
    assert broker is not None
    assert f'password: "{broker[1]}"' in made["nats-auth.conf"]
    for name, config in NATS.items():
        there = tmp_path / name
        (there / "auth").mkdir(parents=True)
        (there / "nats.conf").write_text(config, encoding="utf-8")
        for place in (there, there / "auth"):
            (place / "auth.conf").write_text(made["nats-auth.conf"], encoding="utf-8")
        taken = subprocess.run(
            [BROKER, "-t", "-c", there / "nats.conf"], capture_output=True, text=True, check=False, timeout=20
        )
        assert taken.returncode == 0, taken.stderr


def test_the_keys_of_the_example_are_read_once_their_digests_are_digests() -> None:
    text = of_kind("Secret")["niru"]["stringData"]["api-keys"].replace("digest-of-the-secret", "0" * 64)
    assert [key.name for key in parse_keys(text)] == ["reader", "writer"]


# --- the autoscaler -------------------------------------------------------------------------------------------------

RULES = documents(KUBERNETES / "prometheus-adapter.yaml")[0]["rules"]
TARGETS = {
    metric["pods"]["metric"]["name"]: metric["pods"]["target"]["averageValue"]
    for metric in of_kind("HorizontalPodAutoscaler")["server"]["spec"]["metrics"]
}


def test_the_autoscaler_alone_says_how_many_servers_there_are() -> None:
    scaler = of_kind("HorizontalPodAutoscaler")["server"]["spec"]
    target = of_kind(scaler["scaleTargetRef"]["kind"])[scaler["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]


def test_every_metric_of_the_autoscaler_has_a_rule() -> None:
    assert {rule["name"]["as"] for rule in RULES} == TARGETS.keys()
    for rule in RULES:
        assert "<<.Series>>{<<.LabelMatchers>>" in rule["metricsQuery"]
        assert "by (<<.GroupBy>>)" in rule["metricsQuery"]
        assert rule["resources"]["overrides"] == {each: {"resource": each} for each in ("namespace", "pod")}


def test_prometheus_gives_the_labels_that_the_rules_go_by() -> None:
    (job,) = documents(KUBERNETES / "prometheus-scrape.yaml")[0]["scrape_configs"]
    given = {each["target_label"] for each in job["relabel_configs"] if "target_label" in each}
    assert given == {"namespace", "pod"}
    kept = {each["regex"] for each in job["relabel_configs"] if each.get("action") == "keep"}
    assert kept == {"server", CONTAINERS["server"]["ports"][0]["name"]}
    assert job["kubernetes_sd_configs"][0]["namespaces"]["names"] == ["niruhybrid"]


def test_the_autoscaler_has_the_targets_that_were_simulated() -> None:
    assert TARGETS["niru_queries_waiting"] == f"{SIMULATED['waiting']:g}"
    assert TARGETS["niru_encoder_busy"] == f"{1000 * SIMULATED['busy']:g}m"
