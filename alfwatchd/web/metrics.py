"""The metrics, as Prometheus and OpenMetrics read them. docs/reference/metrics.md lists them.

Nothing is kept here: each answer is made from the same values as `status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from alfwatchd.alf.printable import printable
from alfwatchd.api import AdoptStatus, DaemonState, Status, TargetStatus
from alfwatchd.figures import BOUNDS, Durations, Figures

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Content types of the two formats. node_exporter reads only the second from its files."""

_UP = "Whether the daemon answers."
_BOUND_NAMES = (*map(str, BOUNDS), "+Inf")


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What the server of the control socket counts.

    Parameters
    ----------
    n_connections, room : int
        Open connections, and the most that may be open.
    n_pruned_bytes : int
        Size of the files that prunes have taken since the daemon started.
    """

    n_connections: int
    room: int
    n_pruned_bytes: int


def wanted_type(accept: str) -> str:
    """Return the content type to answer with; `accept` is the header of the request, empty if it has none."""
    kinds = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    return OPENMETRICS if OPENMETRICS.partition(";")[0] in kinds else TEXT


def show(figures: Figures, server: ServerFigures, content_type: str) -> bytes:
    """Return all metrics of a daemon that answers, in the format of a content type."""
    return _show([*_from_status(figures.status), *_counted(figures), *_of_server(server)], content_type)


def show_down(content_type: str) -> bytes:
    """Return what stands in the place of the metrics while no daemon answers."""
    return _show([GaugeMetricFamily("alfwatchd_up", _UP, 0)], content_type)


def list_samples(text: bytes) -> list[dict[str, object]]:
    """Return name, labels and value of each sample in Prometheus' text format."""
    families = text_string_to_metric_families(text.decode())
    return [{"name": each.name, "labels": each.labels, "value": each.value} for one in families for each in one.samples]


def _show(families: list[Metric], content_type: str) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Made(families))
    return bytes((generate_openmetrics if content_type == OPENMETRICS else generate_latest)(registry))


class _Made(Collector):
    """Metrics that are made already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _from_status(status: Status) -> Iterator[Metric]:
    """Yield what `status` tells."""
    yield GaugeMetricFamily("alfwatchd_up", _UP, 1)
    yield _labelled("alfwatchd_build_info", "Version of the daemon; always 1.", ("version",), [((status.version,), 1)])
    states = [((state,), state == status.state) for state in get_args(DaemonState)]
    yield _labelled("alfwatchd_state", "1 for the state of the daemon, 0 for all others.", ("state",), states)
    for name, text, value in _gauges(status):
        if value is not None:
            yield GaugeMetricFamily(f"alfwatchd_{name}", text, value)
    yield CounterMetricFamily(
        "alfwatchd_events_lost", "How often file-system events were lost; each time everything was scanned again.",
        status.events_lost,
    )  # fmt: skip
    if status.adopt is not None:
        yield from _of_adoption(status.adopt)
    if status.targets:
        yield from _of_targets(status.targets)


def _gauges(status: Status) -> list[tuple[str, str, float | None]]:
    """Return name, meaning and value of each number of `status`; None where there is none now."""
    has_rows = status.state != "starting"
    return [
        ("state_since_timestamp_seconds", "When the daemon entered its state.", _timestamp(status.since)),
        ("polled_late", "Whether a scan of a polled tree takes longer than the interval.", status.polled_late),
        (
            "behind_seconds",
            "Age of the oldest known change that the tables on disk lack; 0 if they lack none.",
            status.oldest_unflushed_seconds or 0.0,
        ),
        ("saved", "Whether the last flush succeeded.", status.saved),
        ("generation", "Generation of the tables on disk.", status.generation if has_rows else None),
        ("last_flush_timestamp_seconds", "When the tables were last written.", _timestamp(status.last_flush)),
        ("sessions", "Sessions in the tables.", status.n_sessions if has_rows else None),
        ("datasets", "Datasets in the tables.", status.n_datasets if has_rows else None),
        ("dataset_bytes", "Size of all datasets in the tables.", status.n_bytes if has_rows else None),
        (
            "ignored_entries",
            "Files and folders that are not part of the ALF layout.",
            status.n_ignored if has_rows else None,
        ),
        ("watches", "Folders that the daemon watches.", status.watches),
        ("watches_limit", "Most inotify watches that the kernel allows this user.", status.watches_limit),
        ("unwatched_folders", "Folders that are scanned now and then instead of watched.", status.unwatched),
        ("hashes_pending", "Files that are not hashed yet.", status.hashes_pending),
        ("hashes_unconfirmed", "Files that are hashed again, to confirm their hash.", status.hashes_unconfirmed),
        ("trash_bytes", "Size of the files in the trash.", status.trash_bytes),
    ]


def _of_adoption(adopt: AdoptStatus) -> Iterator[Metric]:
    numbers = [
        (
            "last_read_timestamp_seconds",
            "When the database was last read without error, since the daemon started.",
            _timestamp(adopt.read_at),
        ),
        ("failed", "Whether the last attempt to read the database failed.", adopt.last_error is not None),
        ("sessions", "Sessions of the database that can be adopted.", adopt.n_sessions),
        ("datasets", "Datasets of the database that can be adopted.", adopt.n_datasets),
        ("matched_sessions", "Sessions in the tables that the database knows.", adopt.n_matched_sessions),
        ("matched_datasets", "Datasets in the tables that the database knows.", adopt.n_matched_datasets),
    ]
    for name, text, value in numbers:
        if value is not None:
            yield GaugeMetricFamily(f"alfwatchd_adopt_{name}", text, value)


def _of_targets(targets: list[TargetStatus]) -> Iterator[Metric]:
    def of_each(name: str, text: str, values: Iterable[float | None]) -> Metric:
        labels = [(printable(each.target), each.tag) for each in targets]
        known = [(pair, value) for pair, value in zip(labels, values, strict=True) if value is not None]
        return _labelled(f"alfwatchd_publish_{name}", text, ("target", "tag"), known)

    yield of_each(
        "lag_seconds",
        "Age of the oldest flushed change that the target lacks; 0 if it lacks none.",
        [each.lag_seconds or 0.0 for each in targets],
    )
    yield of_each(
        "failed", "Whether the last attempt to publish failed.", [each.last_error is not None for each in targets]
    )
    yield of_each(
        "last_success_timestamp_seconds",
        "When the target was last brought up to date, or found to be.",
        [_timestamp(each.published_at) for each in targets],
    )


def _counted(figures: Figures) -> Iterator[Metric]:
    """Yield what the daemon counts beside its status."""
    yield GaugeMetricFamily(
        "alfwatchd_unsaved_seconds", "How long flushes have been failing; 0 if the last one succeeded.",
        figures.unsaved_seconds,
    )  # fmt: skip
    labs = sorted(figures.labs.items()) if figures.status.state != "starting" else []
    for name, text, values in (
        ("sessions", "Sessions of a lab.", [lab.n_sessions for _, lab in labs]),
        ("datasets", "Datasets of a lab.", [lab.n_datasets for _, lab in labs]),
        ("dataset_bytes", "Size of the datasets of a lab.", [lab.n_bytes for _, lab in labs]),
    ):
        rows = [((lab,), value) for (lab, _), value in zip(labs, values, strict=True)]
        yield _labelled(f"alfwatchd_lab_{name}", text, ("lab",), rows)
    yield _labelled(
        "alfwatchd_problems", "Problems that a person should act on, by kind.", ("kind",),
        [((kind,), number) for kind, number in sorted(figures.problems.items())],
    )  # fmt: skip
    yield CounterMetricFamily("alfwatchd_events", "File-system events about folders of the tree.", figures.n_events)
    scans = HistogramMetricFamily(
        "alfwatchd_scan_duration_seconds", "Scans that ended, by the reason for which they began.", labels=("reason",)
    )
    for reason, durations in sorted(figures.scans.items()):
        scans.add_metric((reason,), *_classes(durations))
    yield scans
    buckets, seconds = _classes(figures.flushes)
    yield HistogramMetricFamily(
        "alfwatchd_flush_duration_seconds", "Flushes that succeeded.", buckets=buckets, sum_value=seconds
    )
    yield CounterMetricFamily("alfwatchd_flush_failures", "Flushes that failed.", figures.n_failed_flushes)


def _of_server(server: ServerFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily("alfwatchd_connections", "Open connections to the control socket.", server.n_connections)
    yield GaugeMetricFamily("alfwatchd_connections_limit", "Most connections that may be open.", server.room)
    yield CounterMetricFamily(
        "alfwatchd_pruned_bytes", "Size of the files that prunes have taken.", server.n_pruned_bytes
    )


def _labelled(name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _classes(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    """Return (upper bound, number up to it) for each class, and the sum in seconds."""
    return list(zip(_BOUND_NAMES, accumulate(durations.counts), strict=True)), durations.seconds


def _timestamp(time: str | None) -> float | None:
    """Return seconds since 1970 of a time in ISO 8601; None for none."""
    return datetime.fromisoformat(time).timestamp() if time else None
