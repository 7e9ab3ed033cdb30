"""What docs/metrics.md and the dashboard say is what `multiverse/serving/metrics.py` counts."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from multiverse.serving.metrics import COUNTERS, GAUGES, HISTOGRAMS

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {*(f"{name}_total" for name in (*COUNTERS, "fallbacks")), *GAUGES, *HISTOGRAMS}
_NAME = re.compile(r"multiverse:(\w+?)(?:_bucket|_sum|_count)?\b(?!\w)")


def named(text: str) -> set[str]:
    return set(_NAME.findall(text))


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads((DOCS / "grafana" / "multiverse.json").read_text())


def test_the_page_has_a_row_for_every_metric_and_for_no_other() -> None:
    text = (DOCS / "metrics.md").read_text()
    rows = [name for row in re.findall(r"^\| `(.+?)` \|", text, re.M) for name in named(row)]
    assert sorted(rows) == sorted(NAMES)
    assert named(text) == NAMES


def test_the_dashboard_queries_every_metric_and_no_other(dashboard: Any) -> None:
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert named(" ".join(queries)) == NAMES
    for query in queries:
        assert query.count("(") == query.count(")"), query
        assert re.search(r'model_name=~"\$model", engine=~"\$engine"', query), query


def test_the_dashboard_can_be_imported(dashboard: Any) -> None:
    """What Grafana asks of a file: no id of its own, unique panels that don't overlap, a data source to choose."""
    assert "id" not in dashboard
    assert dashboard["title"]
    assert isinstance(dashboard["schemaVersion"], int)
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["source"]["type"] == "datasource"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"}
    assert used == set(variables)


def test_the_dashboard_is_what_its_script_makes(dashboard: Any) -> None:
    assert dashboard == runpy.run_path(str(DOCS / "plot_dashboard.py"))["dashboard"]()
