"""The files for running a server name what a real server has."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from niruhybrid.config import ServerConfig
from niruhybrid.settings import load_settings
from tests.docs.pages import ROOT

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "niruhybrid.json").read_text(encoding="utf-8"))
SYSTEMD = shutil.which("systemd-analyze") or ""
NGINX = shutil.which("nginx") or ""
UNIT = DEPLOY / "systemd" / "niru.service"
SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
USE = re.compile(r"\b(?P<name>niru_\w+)\b(?:\{(?P<labels>[^}]*)\})?")
OURS = ("$job", "$instance")  # labels that Prometheus gives to what it reads
HOW = {"delivered", "failed", "rejected", "dropped", "cancelled"}

Metrics = dict[str, dict[str, set[str]]]


def expressions() -> list[str]:
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + variables


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    """Return the metrics of a real server that has stored and answered, each with its labels and their values."""
    page = tmp_path_factory.mktemp("data") / "tea.md"
    page.write_text("Green tea is brewed at about 80 degrees.", encoding="utf-8")
    run = (sys.executable, "-c", "from niruhybrid.cli import main; main()", "serve", "--port", "0", "--data", str(page))
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if "are searchable (" in line:
                    break
            url = re.search(r"http://[\d.:]+", said)
            assert url is not None, said
            asked = requests.post(f"{url[0]}/stream/query", json={"query": "tea"}, timeout=30)
            assert asked.text.count("event: done") == 1
            text = requests.get(f"{url[0]}/metrics", timeout=30).text
        finally:
            process.terminate()
    found: Metrics = {}
    for sample in SAMPLE.finditer(text):
        labels = found.setdefault(sample["name"], {})
        for label, value in LABEL.findall(sample["labels"] or ""):
            labels.setdefault(label, set()).add(value)
    return found


def wrong(expression: str, exported: Metrics) -> list[str]:
    """Return what an expression names that the server does not export."""
    problems = []
    grouped = {name for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in names.split(", ")}
    labels_of_all = {"le", "instance", "job"}
    for use in USE.finditer(expression):
        if use["name"] not in exported:
            problems.append(use["name"])
            continue
        labels = exported[use["name"]]
        labels_of_all |= labels.keys()
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', use["labels"] or ""):
            known = labels.get(label, set()) | (HOW if label == "how" and "how" in labels else set())
            if value not in OURS and value not in known:
                problems.append(f'{use["name"]}{{{label}="{value}"}}')
    return problems + sorted(grouped - labels_of_all)


@pytest.mark.slow
@pytest.mark.integration
def test_every_metric_of_the_dashboard_is_one_that_a_real_server_exports(exported: Metrics) -> None:
    assert {expression: found for expression in expressions() if (found := wrong(expression, exported))} == {}


@pytest.mark.slow
@pytest.mark.integration
def test_every_metric_that_a_page_names_is_one_that_a_real_server_exports(exported: Metrics) -> None:
    families = exported.keys() | {name.rpartition("_")[0] for name in exported}
    named = {
        (page.name, name)
        for page in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"`[^`]*?\b(niru_[a-z_]+)\b[^`]*`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 15
    assert [f"{page}: {name}" for page, name in sorted(named) if name not in families] == []


@pytest.mark.slow
@pytest.mark.integration
def test_every_metric_that_the_autoscaler_goes_by_is_one_that_a_real_server_exports(exported: Metrics) -> None:
    rules = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text(encoding="utf-8"))["rules"]
    found: dict[str, list[str]] = {}
    for rule in rules:
        series = rule["seriesQuery"].replace('namespace!="",pod!=""', "").replace("{,", "{")
        query = rule["metricsQuery"].replace("<<.Series>>", series.partition("{")[0])
        query = (
            query.replace("<<.LabelMatchers>>,", "").replace("<<.LabelMatchers>>", "").replace("<<.GroupBy>>", "job")
        )
        found |= {query: problems for query in (series, query) if (problems := wrong(query, exported))}
    assert found == {}
    assert len(rules) == 2


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("sum(rate(niru_teapots_total[1m]))", ["niru_teapots_total"]),
        ('sum(niru_waiting{lane="express"})', ['niru_waiting{lane="express"}']),
        ("sum by (colour) (niru_waiting)", ["colour"]),
        ('rate(niru_items_ended_total{how="lost"}[1m])', ['niru_items_ended_total{how="lost"}']),
    ],
)
def test_an_expression_that_would_show_nothing_is_noticed(expression: str, found: list[str], exported: Metrics) -> None:
    assert wrong(expression, exported) == found


def test_there_is_a_panel_for_each_question_of_the_page_on_tuning_in_its_order() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    asked = re.findall(r"^### (.+\?)$", page, re.MULTILINE)
    assert len(asked) > 10
    assert [panel["title"] for panel in DASHBOARD["panels"]] == asked


def test_panels_do_not_overlap_and_each_says_what_to_do() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert len(panel["description"]) > 40
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_settings_of_the_unit_are_settings() -> None:
    file = load_settings(DEPLOY / "systemd" / "niru.toml", environ={})
    assert file.server.host == ServerConfig().host
    named = dict(re.findall(r"^Environment=(NIRU_\w+)=(.+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE))
    assert load_settings(environ=named).store.path == named["NIRU_STORE_PATH"]


@pytest.mark.integration
@pytest.mark.skipif(not SYSTEMD, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "niru.service"
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/niru/bin/niru", sys.executable), encoding="utf-8")
    done = subprocess.run([SYSTEMD, "verify", str(unit)], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.integration
@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_nginx_takes_the_site(tmp_path: Path) -> None:
    site = (DEPLOY / "nginx" / "niruhybrid.conf").read_text(encoding="utf-8")
    plain = re.sub(r"^ *ssl_certificate.*$", "", site, flags=re.MULTILINE).replace("443 ssl", "127.0.0.1:8443")
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off; {plain} }}\n")
    done = subprocess.run([NGINX, "-t", "-c", str(config)], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def test_prometheus_is_told_a_port_and_a_key() -> None:
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    assert f'"127.0.0.1:{ServerConfig().port}"' in text
    assert "credentials_file:" in text


def dashboard_sources() -> Any:
    return [target["datasource"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_which_source_to_use() -> None:
    assert {source["uid"] for source in dashboard_sources()} == {"${datasource}"}
    assert "datasource" in [each["name"] for each in DASHBOARD["templating"]["list"]]
