"""One session by its eid or by any of its paths, and its datasets."""

import re

import pyarrow as pa
import pytest

from alfwatchd.alf.file_names import DATASETS
from alfwatchd.errors import AlfwatchdError
from alfwatchd.query.conditions import Conditions
from alfwatchd.query.datasets import find_session, list_datasets
from alfwatchd.query.sessions import find_sessions
from alfwatchd.query.tables import open_tables
from kit.lab import LAB, NL1, rewrite, write_lab

PATH = f"{NL1}/2021-01-05/001"


@pytest.fixture
def tables(tmp_path):
    with open_tables(write_lab(tmp_path, {**LAB, "other/Subjects/SL/2022-01-01/001": {}})) as opened:
        yield opened


FOUND = [
    (PATH, "", 1),
    (f"./{PATH}/", "", 1),
    ("north/NL-1/2021-01-05/001", "", 1),
    ("NL-1/2021-01-05/001", "", 1),
    (f"{NL1}/2021-01-05/2", "", 2),
    (f"{PATH}/alf/probe00", "alf/probe00", 1),
    ("NL-1/2021-01-05/002/alf", "alf", 2),
]


@pytest.mark.parametrize(("text", "below", "number"), FOUND)
def test_a_session_by_its_path(text, below, number, tables):
    session, found = find_session(tables, text)
    assert (session.subject, session.number, found) == ("NL-1", number, below)


def test_a_session_by_its_eid_however_it_is_written(tables):
    expected = find_sessions(tables, Conditions())[0]
    for text in (expected.eid, expected.eid.upper(), expected.eid.replace("-", "")):
        assert find_session(tables, text) == (expected, "")


def test_another_meaning_of_the_path_counts_if_the_first_is_none(tables):
    assert find_session(tables, "../001", [PATH])[0].subject == "NL-1"


NOT_FOUND = [
    ("00000000-0000-4000-8000-000000000000", "no session has this eid; `alfwatchd ids 00000000"),
    ("north/Subjects/NL-1", "the tables have no session of this path"),
    ("south/Subjects/NL-1/2021-01-05/001", "the tables have no session of this path"),
    ("a\nb", r"a\nb: the tables have no session"),
    ("/", "the tables have no session of this path"),
    ("", "is a variable not set?"),
    ("SL/2022-01-01/001", "several sessions have this path, of other and south; give the eid"),
]


@pytest.mark.parametrize(("text", "says"), NOT_FOUND)
def test_what_names_no_one_session_is_told(text, says, tables):
    with pytest.raises(AlfwatchdError, match=re.escape(says)):
        find_session(tables, text)


def test_the_datasets_of_a_session_and_no_others(tables):
    session, _ = find_session(tables, PATH)
    datasets = list_datasets(tables, session)
    assert {each.rel_path: each.file_size for each in datasets} == LAB[PATH]
    assert {(each.exists, each.qc, each.default_revision, each.hash) for each in datasets} == {
        (True, "NOT_SET", True, None)
    }
    assert [each.rel_path for each in list_datasets(tables, session, "alf/probe00")] == ["alf/probe00/spikes.times.npy"]
    with pytest.raises(AlfwatchdError, match="alf/probe: the session has no such dataset"):
        list_datasets(tables, session, "alf/probe")


def test_a_session_without_datasets_has_none(tables):
    assert list_datasets(tables, find_session(tables, "south/Subjects/SL/2022-01-01/001")[0]) == []


def test_datasets_that_are_not_here_are_listed_as_such(tmp_path):
    write_lab(tmp_path)
    rewrite(tmp_path, DATASETS, lambda table: table.set_column(
        table.schema.get_field_index("exists"), "exists", pa.array([False] * len(table))))  # fmt: skip
    with open_tables(tmp_path) as tables:
        session, _ = find_session(tables, PATH)
        assert session.n_datasets == 0
        assert [each.exists for each in list_datasets(tables, session)] == [False, False]


def test_tables_of_other_programs_may_have_fractions_and_no_numbers(tmp_path):
    write_lab(tmp_path)
    rewrite(tmp_path, DATASETS, lambda table: table.set_column(1, "file_size", pa.array(
        [float("nan") if "spikes" in path else 1.0 for path in table["rel_path"].to_pylist()])))  # fmt: skip
    with open_tables(tmp_path) as tables:
        sizes = [each.file_size for each in list_datasets(tables, find_session(tables, PATH)[0])]
    assert sizes == [1, None]
    assert type(sizes[0]) is int
