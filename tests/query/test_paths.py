"""The folder of a session is the one on the disk, and otherwise where ONE would look for it."""

import datetime

import pytest

from alfwatchd.query.paths import SessionFolders, stays_below
from alfwatchd.query.sessions import SessionRow

CASES = [
    ("lab", ["lab/Subjects/s/2020-01-01/001"], "lab/Subjects/s/2020-01-01/001"),
    ("lab", ["lab/Subjects/s/2020-01-01/1"], "lab/Subjects/s/2020-01-01/1"),
    ("lab", ["lab/Subjects/s/2020-01-01/01"], "lab/Subjects/s/2020-01-01/01"),
    ("lab", ["lab/Subjects/s/2020-01-01/001", "lab/Subjects/s/2020-01-01/1"], "lab/Subjects/s/2020-01-01/001"),
    ("lab", ["s/2020-01-01/1"], "s/2020-01-01/1"),  # the lab is a setting
    ("lab", ["s/2020-01-01/001"], "s/2020-01-01/001"),
    ("", ["s/2020-01-01/1"], "s/2020-01-01/1"),
    ("", ["s/2020-01-01/001"], "s/2020-01-01/001"),
    ("lab", [], "lab/Subjects/s/2020-01-01/001"),
    ("", [], "s/2020-01-01/001"),
]


def session(lab):
    return SessionRow("", lab, "s", datetime.date(2020, 1, 1), 1, "", [], 0, 0)


@pytest.mark.parametrize(("lab", "folders", "found"), CASES)
def test_the_folder_on_the_disk(lab, folders, found, tmp_path):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert SessionFolders(tmp_path).find(session(lab)) == found


@pytest.mark.parametrize("root", [None, "gone"])
def test_without_the_disk_it_is_where_one_looks(root, tmp_path):
    folders = SessionFolders(root and tmp_path / root)
    assert folders.find(session("lab")) == "lab/Subjects/s/2020-01-01/001"


def test_what_leads_elsewhere_is_told():
    assert stays_below("lab/Subjects/a..b/2020-01-01/001")
    for path in ("", "/a", "a//b", "a/../b", "..", "a/.", "./a"):
        assert not stays_below(path), path
