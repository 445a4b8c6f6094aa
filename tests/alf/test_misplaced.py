"""A folder that nearly is a session is reported with the way to make it one, and nothing else is reported."""

import pytest

from alfwatchd.alf import grammar
from alfwatchd.alf.misplaced import diagnose, looks_like_session

# (path, where, part of the advice)
CASES = [
    # The root was set too high.
    ("data/lab/Subjects/s/2020-01-01/001", "data", "did you mean root = .../data?"),
    ("a/b/lab/Subjects/s/2020-01-01/001", "a/b", "did you mean root = .../a/b?"),
    ("my data/lab/Subjects/s/2020-01-01/001", "my data", "did you mean root = .../my data?"),
    ("a/b/s/2020-01-01/001", "a/b", "did you mean root = .../a/b?"),
    ("backup/2020-01-01/s/2020-01-02/001", "backup/2020-01-01", "did you mean root = .../backup/2020-01-01?"),
    # Only one of several labs can be the root, so the other way out must be named too.
    ("proj/s/2020-01-01/001", "proj", "did you mean root = .../proj?"),
    ("proj/s/2020-01-01/001", "proj", "move its subjects into proj/Subjects"),
    ("my proj/s/2020-01-01/001", "my proj", "did you mean root = .../my proj?"),
    ("subjects/s/2020-01-01/001", "subjects", "did you mean root = .../subjects?"),
    # The root was set too low.
    ("2020-01-01/001", "..", "make the folder that holds the subjects or labs the root"),
    ("Subjects/s/2020-01-01/001", "..", "make the folder that holds the labs the root"),
    # Labs and the folder between lab and subject.
    ("my-lab/Subjects/s/2020-01-01/001", "my-lab", "a lab name may hold letters, digits and '_'"),
    ("data/my lab/Subjects/s/2020-01-01/001", "data/my lab", "a lab name may hold"),
    ("lab/subjects/s/2020-01-01/001", "lab/subjects", "capital S"),
    ("lab/SUBJECTS/s/2020-01-01/001", "lab/SUBJECTS", "capital S"),
    ("lab/Subject/s/2020-01-01/001", "lab/Subject", "must be called 'Subjects'"),
    ("lab/Subjects/2020-01-01/001", "lab/Subjects", "no subject folder between 'Subjects' and the date"),
    # Another root would lose the rest of the lab: the folder in between is at fault.
    ("lab/Subjects/group/s/2020-01-01/001", "lab/Subjects", "one folder, the subject: move it up"),
    ("lab/Subjects/s/my protocol/2020-01-01/001", "lab/Subjects", "one folder, the subject: move it up"),
    ("data/lab/Subjects/group/s/2020-01-01/001", "data/lab/Subjects", "one folder, the subject: move it up"),
    # Subjects.
    ("my subject/2020-01-01/001", "my subject", "a subject name may hold"),
    ("lab/Subjects/s+/2020-01-01/001", "lab/Subjects/s+", "a subject name may hold"),
    ("s\udcff/2020-01-01/001", "s\udcff", "a subject name may hold"),
    ("s/2020-01-01/2020-01-02/001", "s/2020-01-01", "a date folder holds another one"),
    # Dates and numbers.
    ("s/2020-02-30/001", "s/2020-02-30", "not a valid yyyy-mm-dd"),
    ("s/2020-1-1/001", "s/2020-1-1", "not a valid yyyy-mm-dd"),
    ("s/20200101/001", "s/20200101", "not a valid yyyy-mm-dd"),
    ("lab/Subjects/s/2020_01_01/001", "lab/Subjects/s/2020_01_01", "not a valid yyyy-mm-dd"),
    ("s/31-12-2020/1", "s/31-12-2020", "not a valid yyyy-mm-dd"),
    ("2020-13-01/001", "2020-13-01", "not a valid yyyy-mm-dd"),
    ("s/２０２０-０１-０１/001", "s/２０２０-０１-０１", "not a valid yyyy-mm-dd"),
    ("s/2020-01-01/0001", "s/2020-01-01/0001", "one to three digits, 0 to 9"),
    ("s/2020-01-01/٣", "s/2020-01-01/٣", "one to three digits, 0 to 9"),
]


@pytest.mark.parametrize(("path", "where", "advice"), CASES)
def test_advice_names_the_folder_at_fault_and_the_way_out(path, where, advice):
    assert looks_like_session(path)
    assert grammar.parse_session(path) is None
    found = diagnose(path)
    assert found.where == where
    assert advice in found.advice


@pytest.mark.parametrize(
    ("path", "where", "root"),
    [
        ("data/lab/Subjects/s/2020-01-01/001", "data", "lab/Subjects/s/2020-01-01/001"),
        ("a/b/s/2020-01-01/1", "a/b", "s/2020-01-01/1"),
        ("x y/s/2020-01-01/1", "x y", "s/2020-01-01/1"),
    ],
)
def test_the_advised_root_makes_it_a_session(path, where, root):
    assert diagnose(path).where == where
    assert path == f"{where}/{root}"
    assert grammar.parse_session(root) is not None


def test_folders_with_one_cause_have_one_advice():
    one = diagnose("data/lab/Subjects/s/2020-01-01/001")
    other = diagnose("data/other/Subjects/t/2021-12-31/002")
    assert one == other


@pytest.mark.parametrize(
    "path",
    [
        "001",
        "2020-01-01",
        "s/2020-01-01/raw",
        "s/2020-01-01/12345",
        "raw.zarr/123456/12",  # six digits are no date at a glance
        "chunks/202013/1",
        "s/2020-0101/1",
        "s/2020-01_01/1",
    ],
)
def test_what_no_person_would_take_for_a_session_is_not_reported(path):
    assert not looks_like_session(path)
