"""The report adds up: each session counts once for its subject, its lab and the total."""

import datetime
from dataclasses import replace

import pytest

from alfwatchd.alf.patterns import DatasetPattern
from alfwatchd.query.conditions import Conditions
from alfwatchd.query.report import ReportRow, make_report
from alfwatchd.query.tables import open_tables
from kit.lab import write_lab

DAY = datetime.date


@pytest.fixture
def tables(tmp_path):
    with open_tables(write_lab(tmp_path)) as opened:
        yield opened


def test_each_subject_each_lab_and_the_total(tables):
    required = [DatasetPattern.parse(text) for text in ("spikes.times", "trials.table")]
    report = make_report(tables, Conditions(), required)
    assert report.subjects == [
        ReportRow("north", "NL-1", 2, 3, 13, DAY(2021, 1, 5), DAY(2021, 1, 5),
                  {"spikes.times": 1, "trials.table": 0}, 1),
        ReportRow("north", "NL-2", 1, 2, report.subjects[1].n_bytes, DAY(2021, 2, 1), DAY(2021, 2, 1),
                  {"spikes.times": 0, "trials.table": 1}, 1),
        ReportRow("south", "SL", 1, 0, 0, DAY(2022, 1, 1), DAY(2022, 1, 1), {"spikes.times": 1, "trials.table": 1}, 1),
    ]  # fmt: skip
    assert [(row.lab, row.subject, row.n_sessions, row.n_incomplete) for row in report.labs] == [
        ("north", None, 3, 2), ("south", None, 1, 1),
    ]  # fmt: skip
    total = report.total
    assert (total.n_sessions, total.n_datasets, total.first, total.last) == (4, 5, DAY(2021, 1, 5), DAY(2022, 1, 1))
    assert total.n_bytes == sum(row.n_bytes for row in report.subjects)
    assert (total.missing, total.n_incomplete) == ({"spikes.times": 2, "trials.table": 2}, 3)
    assert (report.generation, report.required) == (1, ["spikes.times", "trials.table"])


def test_only_the_sessions_that_fit_count(tables):
    report = make_report(tables, replace(Conditions(), labs=("south",)), [])
    assert [row.subject for row in report.subjects] == ["SL"]
    assert (report.total.n_sessions, report.total.missing, report.total.n_incomplete) == (1, {}, 0)


def test_no_session_is_a_report_of_nothing(tables):
    report = make_report(tables, replace(Conditions(), numbers=(9,)), [])
    assert (report.subjects, report.labs) == ([], [])
    assert report.total == ReportRow(None, None, 0, 0, 0, None, None, {}, 0)
