"""Alerts and dashboard ask for metrics that a running server has, with labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml

import quarr

DEPLOY = Path(__file__).parents[2] / "deploy"
# What Grafana puts in its place, made into something that parses.
GRAFANA = {"$__rate_interval": "5m", "$__range": "1h", "$job": ".*", "$instance": ".*"}
# Labels that Prometheus and aggregations add.
ADDED = {"job", "instance", "le"}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory) -> dict[str, set[str]]:
    """The samples of a server that was asked something, and their labels."""
    folder = tmp_path_factory.mktemp("store")
    with quarr.Server("--store", str(folder), env={}) as server:
        assert server.get("/v1/repos").ok
        (folder / "a.npy").write_bytes(quarr.npy([1.0, 2.0]))
        quarr.run("import", folder / "a.npy", "--to", "climate", "--server", server.url, env={})
        assert server.get("/v1/repos/climate/refs/main/data/a", f="json").ok
        text = server.get("/metrics").text
    names: dict[str, set[str]] = {}
    for line in text.splitlines():
        if found := re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line):
            names.setdefault(found[1], set()).update(re.findall(r"(\w+)=\"", found[2] or ""))
    # A family without a sample yet is there by its description.
    for family in re.findall(r"^# TYPE (\S+)", text, re.M):
        names.setdefault(family, set())
    return names


def rules() -> list[dict]:
    groups = yaml.safe_load((DEPLOY / "helm" / "quarr" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict:
    return json.loads((DEPLOY / "grafana" / "quarr.json").read_text())


def queries() -> list[tuple[str, str]]:
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    found += [(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return found


def plain(expression: str) -> str:
    for variable, value in GRAFANA.items():
        expression = expression.replace(variable, value)
    return expression


def selectors(tree) -> list[promql_parser.VectorSelector]:
    """All selectors of a query."""
    if isinstance(tree, promql_parser.VectorSelector):
        return [tree]
    if isinstance(tree, promql_parser.MatrixSelector):
        return [tree.vector_selector]
    parts = [getattr(tree, name, None) for name in ("lhs", "rhs", "expr", "param")] + list(getattr(tree, "args", None) or [])
    return [found for part in parts if isinstance(part, promql_parser.Expr) for found in selectors(part)]


@pytest.mark.parametrize(("where", "expression"), queries(), ids=lambda text: text if " " not in text and len(text) < 40 else None)
def test_every_metric_is_there_with_its_labels(exposed, where, expression):
    tree = promql_parser.parse(plain(expression))
    found = selectors(tree)
    # None was overlooked: every word that looks like a metric is in a selector.
    named = set(re.findall(r"\b(?:quarr|process)_\w+", re.sub(r"\"[^\"]*\"", "", expression)))
    assert {selector.name for selector in found} == named
    for selector in found:
        assert selector.name in exposed, f"{where}: no server has {selector.name}"
        wanted = {matcher.name for matcher in selector.matchers.matchers} - ADDED
        assert wanted <= exposed[selector.name], f"{where}: {selector.name} has no label {wanted - exposed[selector.name]}"


def test_alerts_say_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))


def test_labels_that_alerts_show_are_left_by_their_queries():
    """`{{ $labels.x }}` is empty if the query has summed x away."""
    for rule in rules():
        shown = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        # Of both sides of an `and`, the labels of the first one are kept.
        if first := re.search(r"by \(([^)]*)\)", rule["expr"]):
            assert shown <= {label.strip() for label in first[1].split(",")}, rule["alert"]


def test_panels_have_places_and_sources():
    panels = dashboard()["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["datasource"]["uid"] == "${source}" for panel in panels if panel["type"] != "row")


def test_the_chart_scales_by_a_metric_that_is_there(exposed):
    values = yaml.safe_load((DEPLOY / "helm" / "quarr" / "values.yaml").read_text())
    assert values["autoscaling"]["inFlightMetric"] in exposed
