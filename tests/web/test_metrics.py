"""What monitoring systems read. If one of these fails, an alert is silent, or a dashboard wrong or empty."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from alfwatchd import api
from alfwatchd.figures import BOUNDS, Durations, Figures, FiguresRequest
from alfwatchd.index.scan_reasons import KINDS
from alfwatchd.tree.rows import PROBLEM_KINDS
from alfwatchd.tree.sessions import Counts
from alfwatchd.web import metrics
from alfwatchd.web.metrics import OPENMETRICS, TEXT, ServerFigures
from kit.control import STATUS, control_box

PAGE = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
ODD, ODD_SHOWN = '/"odd"/\\\n\udcff', '/"odd"/\\\\n\\udcff'
"""A path that is not UTF-8."""
TIME = "2024-01-01T00:00:00+00:00"


def took(*seconds: float) -> Durations:
    made = Durations()
    for each in seconds:
        made.add(each)
    return made


FIGURES = Figures(
    status=replace(
        STATUS, state="polled", polled_late=True, last_flush=TIME, watches_limit=9, trash_bytes=11,
        adopt=api.AdoptStatus("/alyx", TIME, "gone", 5, 6, 3, 4),
        targets=[
            api.TargetStatus("/pub", "mine", "3-abc", TIME, 7.5, None, None),
            api.TargetStatus(ODD, "", None, None, None, "no bucket", None),
        ],
    ),
    labs={"south": Counts(1, 2, 30)},
    problems=dict.fromkeys(PROBLEM_KINDS, 0) | {"twin": 1},
    n_events=12,
    scans={kind: took() for kind in KINDS} | {"start": took(0.2, 5000.0)},
    flushes=took(0.02, 20_000.0),
    n_failed_flushes=13,
    unsaved_seconds=14.5,
)  # fmt: skip
SERVER = ServerFigures(15, 16, 17)
SAMPLES = [
    ("alfwatchd_up", {}, 1),
    ("alfwatchd_build_info", {"version": "1"}, 1),
    ("alfwatchd_state", {"state": "polled"}, 1),
    ("alfwatchd_state", {"state": "catching up"}, 0),
    ("alfwatchd_state_since_timestamp_seconds", {}, 1704067200),
    ("alfwatchd_polled_late", {}, 1),
    ("alfwatchd_behind_seconds", {}, 1.5),
    ("alfwatchd_saved", {}, 0),
    ("alfwatchd_unsaved_seconds", {}, 14.5),
    ("alfwatchd_generation", {}, 3),
    ("alfwatchd_dataset_bytes", {}, 30),
    ("alfwatchd_lab_datasets", {"lab": "south"}, 2),
    ("alfwatchd_events_total", {}, 12),
    ("alfwatchd_events_lost_total", {}, 1),
    ("alfwatchd_scan_duration_seconds_bucket", {"reason": "start", "le": "0.1"}, 0),
    ("alfwatchd_scan_duration_seconds_bucket", {"reason": "start", "le": "0.3"}, 1),
    ("alfwatchd_scan_duration_seconds_bucket", {"reason": "start", "le": "+Inf"}, 2),
    ("alfwatchd_scan_duration_seconds_sum", {"reason": "start"}, 5000.2),
    ("alfwatchd_scan_duration_seconds_count", {"reason": "sync"}, 0),
    ("alfwatchd_flush_duration_seconds_count", {}, 2),
    ("alfwatchd_flush_failures_total", {}, 13),
    ("alfwatchd_watches", {}, 5),
    ("alfwatchd_watches_limit", {}, 9),
    ("alfwatchd_unwatched_folders", {}, 6),
    ("alfwatchd_hashes_pending", {}, 7),
    ("alfwatchd_adopt_last_read_timestamp_seconds", {}, 1704067200),
    ("alfwatchd_adopt_failed", {}, 1),
    ("alfwatchd_adopt_matched_datasets", {}, 4),
    ("alfwatchd_publish_lag_seconds", {"target": "/pub", "tag": "mine"}, 7.5),
    ("alfwatchd_publish_lag_seconds", {"target": ODD_SHOWN, "tag": ""}, 0),
    ("alfwatchd_publish_failed", {"target": ODD_SHOWN, "tag": ""}, 1),
    ("alfwatchd_problems", {"kind": "twin"}, 1),
    ("alfwatchd_problems", {"kind": "held"}, 0),
    ("alfwatchd_trash_bytes", {}, 11),
    ("alfwatchd_connections", {}, 15),
    ("alfwatchd_connections_limit", {}, 16),
    ("alfwatchd_pruned_bytes_total", {}, 17),
]


def samples(families: Iterable[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    listed = [((each.name, frozenset(each.labels.items())), each.value) for one in families for each in one.samples]
    assert len(listed) == len(dict(listed)), "a series is there twice"
    return dict(listed)


@pytest.mark.parametrize(("content_type", "parse"), [(TEXT, parse_text), (OPENMETRICS, parse_openmetrics)])
def test_each_figure_is_read_as_it_is(content_type, parse):
    """By the parsers of the library that Prometheus' own tools are compared with."""
    found = samples(parse(metrics.show(FIGURES, SERVER, content_type).decode()))
    for name, labels, value in SAMPLES:
        assert found[name, frozenset(labels.items())] == value, (name, labels)


def families(text: bytes) -> dict[str, Metric]:
    return {each.name: each for each in parse_text(text.decode())}


def full_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_the_page_of_metrics_lists_what_is_exposed():
    """Names, types, labels: an administrator writes alerts by this page."""
    rows = re.findall(r"(?m)^\| `(alfwatchd_\w+)` \| (\w+) \| ([^|]*)\| \S", PAGE)
    described = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(described) == len(rows)
    exposed = {
        full_name(each): (each.type, {label for sample in each.samples for label in sample.labels} - {"le"})
        for each in families(metrics.show(FIGURES, SERVER, TEXT)).values()
    }
    assert described == exposed


def test_the_page_names_all_values_of_labels():
    """Those that the program chooses: states, kinds of problems, reasons, and the bounds of durations."""
    reasons = PAGE.partition("\n## Reasons of scans\n")[2].partition("\n## ")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \|", reasons) == list(KINDS)
    bounds = PAGE.partition("seconds of the classes are ")[2].partition(".\n")[0]
    assert [float(each) for each in re.findall(r"[\d.]+", bounds)] == list(BOUNDS)


UNITS = ("seconds", "bytes", "total", "info")


def test_names_follow_the_conventions():
    """https://prometheus.io/docs/practices/naming: one prefix, base units, `_total` for counters only."""
    for family in families(metrics.show(FIGURES, SERVER, TEXT)).values():
        name = full_name(family)
        assert re.fullmatch(r"alfwatchd(_[a-z]+)+", name)
        assert name.endswith("_total") == (family.type == "counter")
        assert not name.endswith(("_count", "_sum", "_bucket"))
        assert not re.search(r"_(ms|milliseconds|minutes|hours|days|kb|mb|kilobytes|age)\b", name)
        assert family.documentation.endswith(".")
        assert ("seconds" not in name) or name.endswith("_seconds")


def test_what_is_not_known_is_left_out():
    """A zero would be a wrong number: nothing is watched, nothing adopted, nothing written yet."""
    found = families(metrics.show(Figures(replace(STATUS, last_flush=None)), SERVER, TEXT))
    for name in ("watches_limit", "last_flush_timestamp_seconds", "adopt_failed", "publish_failed"):
        assert f"alfwatchd_{name}" not in found
    assert found["alfwatchd_build_info"].samples[0].labels == {"version": "1"}


def test_without_a_daemon_there_is_one_metric_that_says_so():
    """Values of earlier would look like those of a daemon that runs."""
    assert samples(parse_text(metrics.show_down(TEXT).decode())) == {("alfwatchd_up", frozenset()): 0}
    assert samples(parse_openmetrics(metrics.show_down(OPENMETRICS).decode())) == {("alfwatchd_up", frozenset()): 0}


def test_rows_that_are_not_counted_yet_are_left_out():
    """Each restart would look as if the lab had lost all its data."""
    figures = replace(FIGURES, status=replace(FIGURES.status, state="starting"))
    found = families(metrics.show(figures, SERVER, TEXT))
    for name in ("sessions", "datasets", "dataset_bytes", "ignored_entries", "generation"):
        assert f"alfwatchd_{name}" not in found
    assert found["alfwatchd_lab_sessions"].samples == []
    assert found["alfwatchd_state"].samples[0].labels == {"state": "starting"}
    assert found["alfwatchd_watches"].samples[0].value == 5


ACCEPTED = [
    ("", TEXT),
    ("*/*", TEXT),
    ("text/plain;version=0.0.4;q=0.3, */*;q=0.1", TEXT),
    ("application/openmetrics-text", OPENMETRICS),
    # Prometheus 2.42
    (
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        OPENMETRICS,
    ),
    ("Text/Plain , APPLICATION/OpenMetrics-Text ; version=1.0.0", OPENMETRICS),
    ("application/openmetrics-textual", TEXT),
]


@pytest.mark.parametrize(("accept", "content_type"), ACCEPTED)
def test_the_format_is_the_one_that_is_asked_for(accept, content_type):
    assert metrics.wanted_type(accept) == content_type


def test_the_control_socket_answers_with_figures_of_the_engine_and_its_own():
    """Over the wire, the figures are those that the engine gave, and the connections those of this server."""
    with control_box({FiguresRequest: FIGURES}) as box:
        with box.connect(), box.connect():
            found = samples(parse_text(box.client.metrics().decode()))
        assert found["alfwatchd_problems", frozenset({("kind", "twin")})] == 1
        assert found["alfwatchd_connections", frozenset()] >= 3
        assert found["alfwatchd_connections_limit", frozenset()] >= 8
        assert found["alfwatchd_pruned_bytes_total", frozenset()] == 0
        assert [type(each) for each in box.engine.taken] == [FiguresRequest]
        answer = box.exchange(b"GET /metrics HTTP/1.1\r\nHost: d\r\nAccept: application/openmetrics-text\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"content-type: {OPENMETRICS}".encode() in head
        assert head.count(b"content-type") == 1
        assert body.endswith(b"# EOF\n")


def test_errors_are_those_of_the_other_requests():
    """A wrong method, a query and a failing engine are answered in JSON, as everywhere on this socket."""
    with control_box({FiguresRequest: RuntimeError("bug")}) as box:
        assert box.ask("POST", "/metrics")[0] == 405
        assert box.ask("GET", "/metrics?name=x")[0] == 400
        assert box.ask("GET", "/metrics")[1]["error"] == "RequestFailed"
