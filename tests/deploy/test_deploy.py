"""What an operator would see: a run with its metrics on, scraped by Prometheus under the rules of ``deploy/``."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scanner.records import MEMBERS
from scanner.service.security import ServiceInstruments
from scanner.survey import metrics
from scanner.survey.metrics import ProcessInstruments, RunInstruments, WorkInstruments
from scanner.training.metrics import TrainingInstruments

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
GROUPS = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))}
#: The operator's guide; it has a section for each alert.
RUNBOOK = "https://github.com/scanner-lenses/scanner/blob/main/docs/operating.md"
#: What Grafana puts in for its variables.
VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}


def panels_of(name):
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def panel_expressions(dashboard):
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression
            yield f"{panel['title']}: {target['legendFormat']}", expression


EXPRESSIONS = {name: dict(panel_expressions(name)) for name in DASHBOARDS}


@pytest.fixture(scope="module")
def known_names():
    """Every name that a scanner process or a recording rule can give."""
    from prometheus_client import CollectorRegistry, generate_latest

    registries = [CollectorRegistry() for _ in range(5)]
    ProcessInstruments(registries[0]), WorkInstruments(registries[1]), RunInstruments(registries[2])
    ServiceInstruments(registries[3]), TrainingInstruments(registries[4], MEMBERS)
    text = "".join(generate_latest(registry).decode() for registry in registries)
    # A family is listed whether or not it has a series yet.
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    parts = ("_bucket", "_sum", "_count")
    names = {f"{name}{part}" for name, kind in families.items() for part in (parts if kind == "histogram" else ("",))}
    return names | {rule["record"] for rule in RULES if "record" in rule}


@pytest.mark.parametrize(
    "expression", [*(rule["expr"] for rule in RULES), *(text for one in EXPRESSIONS.values() for text in one.values())]
)
def test_no_expression_asks_for_what_nobody_tells(known_names, expression):
    """A metric that is misspelt gives no error: the alert never fires."""
    asked = set(re.findall(r"(?<![\w:])(?:job\w*:)?(?:scanner|process)_[\w:]+", expression))
    assert asked
    assert asked <= known_names, asked - known_names


def test_alerts_say_what_is_wrong_and_what_to_do():
    alerts = [rule for rule in RULES if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    tested = (PROMETHEUS / "rules_test.yaml").read_text()
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{rule['alert'].lower()}"
        assert re.search(rf"alertname: {rule['alert']}\n\s+exp_alerts:", tested), f"{rule['alert']} is never seen to fire"


def test_rules_are_valid_and_do_what_they_should(promtool):
    for words in (
        ("check", "rules", "rules.yaml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "rules_test.yaml"),
    ):
        code, said = promtool(*words[:-1], PROMETHEUS / words[-1])
        assert code == 0, said


def test_the_dashboards_are_what_their_source_makes():
    path = DEPLOY / "grafana" / "dashboard.py"
    made = "import json, dashboard; print(json.dumps(dashboard.dashboards()))"
    done = subprocess.run([sys.executable, "-c", made], cwd=path.parent, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {f"{name}.json": one for name, one in DASHBOARDS.items()}, f"run {path}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_dashboards_can_be_read(name):
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels lie upon one another"
    assert max(x for x, _ in cells) < 24
    for panel in panels_of(name):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert all(target["datasource"] == panel["datasource"] and target["legendFormat"] for target in panel["targets"])
    variables = {variable["name"]: variable for variable in DASHBOARDS[name]["templating"]["list"]}
    assert variables.keys() == {"datasource", "job", "instance"}
    assert variables["datasource"]["type"] == "datasource"


def test_the_pages_of_a_run_are_as_prometheus_wants_them(scraped, promtool):
    assert len(scraped.pages) == 3, "a driver and two workers"
    for text in scraped.pages.values():
        code, said = promtool("check", "metrics", text=text)
        assert (code, said) == (0, "")


@pytest.mark.parametrize(("name", "where"), [(name, where) for name in ("scanner", "service") for where in EXPRESSIONS[name]])
def test_every_panel_shows_something_of_a_run_and_of_a_service(scraped, name, where):
    assert scraped.values(EXPRESSIONS[name][where]), EXPRESSIONS[name][where]


def test_dashboards_have_names_of_their_own():
    assert len({one["uid"] for one in DASHBOARDS.values()}) == len({one["title"] for one in DASHBOARDS.values()}) == 3


def test_prometheus_saw_the_whole_run(scraped):
    assert scraped.values('scanner_run_tiles{state="done"}')[-1] == 3
    assert scraped.values('scanner_run_tiles{state="failed"}')[-1] == 1
    assert max(scraped.values("scanner_run_workers")) == 2
    # A worker may end with its last tile before it is asked again; the driver knows all of them.
    assert 0 < max(scraped.values("sum(scanner_tiles_done_total)")) <= 3
    assert 0 < max(scraped.values("sum(scanner_objects_cut_total)")) <= scraped.values("scanner_run_objects_total")[-1]
    for stage in sorted({*metrics.STAGES} - {"fetch"}):
        assert max(scraped.values(f'sum(scanner_stage_seconds_count{{stage="{stage}"}})')) > 0, stage
    # The driver waited to be asked once more, so that its end was seen.
    assert scraped.values('scanner_run_state{state="done"}')[-1] == 1
    assert scraped.values("scanner_run_last_success_timestamp_seconds")[-1] > scraped.start


#: The disk is everybody's, and may be full before a test begins.
OF_THE_DISK = {"ScannerDiskFillsUp", "ScannerDiskAlmostFull"}


def test_rules_are_evaluated_without_error_and_no_alert_fires(scraped):
    rules = [rule for group in scraped.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        assert rule.get("state") != "firing" or rule["name"] in OF_THE_DISK, rule
    # Not even pending; but a run begins without workers, a driver that is busy may miss a scrape, a service opens.
    pending = {series["metric"]["alertname"] for series in scraped.series("ALERTS")}
    assert pending <= {"ScannerNoWorkers", "ScannerDriverGone", "ScannerServiceNotReady"} | OF_THE_DISK


@pytest.mark.parametrize("name", [rule["record"] for rule in RULES if "record" in rule])
def test_every_recording_rule_records_something(scraped, name):
    assert scraped.values(name)


def test_every_alert_has_its_section_of_the_guide_and_every_section_its_alert():
    guide = (DEPLOY.parent / "docs" / "operating.md").read_text()
    sections = re.findall(r"^### (\w+)$", guide.partition("\n## Alerts\n")[2], re.MULTILINE)
    assert sorted(sections) == sorted(rule["alert"] for rule in RULES if "alert" in rule)
