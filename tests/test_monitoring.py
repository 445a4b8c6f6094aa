"""The alerts and the dashboard name metrics that exist. `tests/system/test_monitoring.py` tries them.

If one of these fails, an alert never fires, and a panel of the dashboard is empty.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alfwatchd.figures import BOUNDS

REPOSITORY = Path(__file__).parents[1]
ALERTS = (REPOSITORY / "monitoring/alerts.yml").read_text()
DASHBOARD = json.loads((REPOSITORY / "monitoring/dashboard.json").read_text())
PAGE = (REPOSITORY / "docs/reference/metrics.md").read_text()
EXPOSED = dict(re.findall(r"(?m)^\| `(alfwatchd_\w+)` \| (\w+) \|", PAGE))
SERIES = {
    f"{name}{part}"
    for name, kind in EXPOSED.items()
    for part in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
}


def expressions() -> list[str]:
    return re.findall(r"(?m)^ +expr: (.+)$", ALERTS) + [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
    ]


def test_each_metric_in_an_expression_is_exposed():
    named = {name for text in expressions() for name in re.findall(r"\balfwatchd_\w+", text)}
    assert len(expressions()) > 40
    assert named - SERIES == set()


def test_counters_are_only_used_by_their_rates():
    """Their values begin again at 0 with each start of the daemon."""
    for text in expressions():
        for name in re.findall(r"\balfwatchd_\w+", text):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            if EXPOSED.get(base, "gauge") != "gauge":
                assert re.search(rf"(?:rate|increase)\({name}\b", text), text


RULES = ALERTS.split("- alert: ")[1:]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.split()[0])
def test_each_alert_says_what_is_the_case_and_what_to_do(rule):
    assert re.search(r"severity: (critical|warning|info)\n", rule)
    for part in ("summary", "description"):
        assert re.search(rf'{part}: "[^"]{{20,}}"\n', rule), part


def test_alerts_and_panels_are_named_in_the_guide():
    guide = (REPOSITORY / "docs/guide/monitor.md").read_text()
    assert re.findall(r"(?m)^\| `(Alfwatchd\w+)` \|", guide) == [rule.split()[0] for rule in RULES]


def test_panels_lie_beside_each_other():
    """Grafana would move a panel that lies on another one."""
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) == len({panel["title"] for panel in DASHBOARD["panels"]})


def test_the_longest_duration_that_a_quantile_can_tell_is_hours():
    """A scan of a slow file server takes so long."""
    assert max(BOUNDS) >= 7200
