"""The sessions that are asked for, and no others."""

import datetime
import re
from dataclasses import replace

import pyarrow as pa
import pytest

from alfwatchd.alf.file_names import SESSIONS
from alfwatchd.alf.patterns import DatasetPattern
from alfwatchd.errors import AlfwatchdError
from alfwatchd.query.conditions import Conditions, Dates
from alfwatchd.query.sessions import SessionRow, find_sessions, unknown_dataset
from alfwatchd.query.tables import open_tables
from kit.lab import rewrite, write_lab


@pytest.fixture
def tables(tmp_path):
    write_lab(tmp_path)
    rewrite(tmp_path, SESSIONS, lambda table: table.set_column(
        table.schema.get_field_index("projects"), "projects",
        pa.array([{"NL-1": "deep, wide", "NL-2": "wide"}.get(name, "") for name in table["subject"].to_pylist()]),
    ))  # fmt: skip
    with open_tables(tmp_path) as opened:
        yield opened


def pattern(text):
    return DatasetPattern.parse(text)


ALL = Conditions()
A, B, C, D = ("NL-1", 1), ("NL-1", 2), ("NL-2", 1), ("SL", 1)
CASES = [
    (ALL, [A, B, C, D]),
    (replace(ALL, labs=("north",)), [A, B, C]),
    (replace(ALL, labs=("n*", "south")), [A, B, C, D]),
    (replace(ALL, subjects=("NL-2", "SL")), [C, D]),
    (replace(ALL, subjects=("NL-?",), numbers=(2, 9)), [B]),
    (replace(ALL, projects=("deep",)), [A, B]),
    (replace(ALL, projects=("wide",)), [A, B, C]),
    (replace(ALL, dates=Dates.parse("2021-01-05..2021-02-01")), [A, B, C]),
    (replace(ALL, dates=Dates.parse("2021-01-06..")), [C, D]),
    (replace(ALL, dates=Dates.parse("..2021-01-05")), [A, B]),
    (replace(ALL, dates=Dates.parse("1900")), []),
    (replace(ALL, having=(pattern("spikes.times"),)), [A, C]),
    (replace(ALL, having=(pattern("spikes.times"), pattern("trials.table"))), [A]),
    (replace(ALL, having=(pattern("raw_video_data/*.mp4"),)), [C]),
    (replace(ALL, lacking=(pattern("spikes.times"),)), [B, D]),
    (replace(ALL, lacking=(pattern("spikes.times"), pattern("trials.table"))), [D]),
    (replace(ALL, having=(pattern("trials.table"),), lacking=(pattern("spikes.times"),)), [B]),
    (replace(ALL, lacking=(pattern("never.seen"),)), [A, B, C, D]),
]


@pytest.mark.parametrize(("conditions", "expected"), CASES, ids=[str(number) for number in range(len(CASES))])
def test_conditions(conditions, expected, tables):
    found = find_sessions(tables, conditions)
    assert [(session.subject, session.number) for session in found] == expected


def test_all_of_a_session_is_told(tables):
    session = find_sessions(tables, replace(ALL, subjects=("NL-1",)))[0]
    assert len(session.eid) == 36
    assert session._replace(eid="") == SessionRow(
        "", "north", "NL-1", datetime.date(2021, 1, 5), 1, "", ["deep", "wide"], n_datasets=2, n_bytes=11
    )


UNKNOWN = [
    (replace(ALL, subjects=("NL1",)), "no session has the subject 'NL1'; did you mean 'NL-1'?"),
    (replace(ALL, labs=("xyz",)), "no session has the lab 'xyz'; there are: north, south"),
    (replace(ALL, projects=("deeep",)), "did you mean 'deep'?"),
    (replace(ALL, projects=("*x*",)), "there are: deep, wide"),
    (replace(ALL, having=(pattern("spike.times"),)), "no dataset matches 'spike.times'; did you mean spikes.times?"),
]


@pytest.mark.parametrize(("conditions", "says"), UNKNOWN)
def test_a_name_that_is_nowhere_is_no_empty_answer(conditions, says, tables):
    """A person who misspells a name would believe that there are no data."""
    with pytest.raises(AlfwatchdError, match=re.escape(says)):
        find_sessions(tables, conditions)


def test_a_name_like_no_other_gets_other_advice(tables):
    assert "`alfwatchd ls EID_OR_PATH` lists" in unknown_dataset(tables, pattern("qqq.zzz"))
