"""A folder that nearly is a session is reported with the way to make it one, and nothing else is reported."""

import pytest

from alfwatchd.alf import grammar
from alfwatchd.alf.misplaced import diagnose, leads_to_session, looks_like_session, nested_session

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
    # What a Mac writes looks like letters that a name may hold (syncthing/syncthing#5339).
    ("lab/Subjects/mu\u0308ller/2020-01-01/001", "lab/Subjects/mu\u0308ller", "as macOS writes them (Unicode NFD)"),
    ("Zu\u0308rich/Subjects/s/2020-01-01/001", "Zu\u0308rich", "convmv -f utf8 -t utf8 --nfc --notest"),
    ("lab/Subjects/mu\u0308ller 2/2020-01-01/001", "lab/Subjects/mu\u0308ller 2", "a subject name may hold"),
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
    # A space at the end of a name is not seen in a file browser, and comes with names that were pasted.
    ("s/2020-01-01/001 ", "s/2020-01-01/001 ", "the name '001 ' begins or ends with a space"),
    ("s/2020-01-01 /001", "s/2020-01-01 ", "begins or ends with a space"),
    ("lab/Subjects/s /2020-01-01/001", "lab/Subjects/s ", "begins or ends with a space"),
    ("lab /Subjects/s/2020-01-01/001", "lab ", "begins or ends with a space"),
    ("lab/Subjects /s/2020-01-01/001", "lab/Subjects ", "begins or ends with a space"),
    ("s/ 2020-01-01/001", "s/ 2020-01-01", "begins or ends with a space"),
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


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("data/lab/Subjects", True),
        ("data/lab/Subjects/s", True),
        ("lab/subjects ", True),
        ("data/s/2020-01-01", True),
        ("data/s/2020-01-01/001", True),
        ("data/lab", False),
        ("data/lab/Subjects/s/videos", False),
        ("data", False),
    ],
)
def test_a_short_look_goes_first_where_sessions_are_likely(path, leads):
    assert leads_to_session(path) == leads


@pytest.mark.parametrize(
    ("session", "collection", "name", "place"),
    [
        ("lab/Subjects/s/2020-01-01/001", "", "002", "lab/Subjects/s/2020-01-01/002"),
        ("s/2020-01-01/001", "2020-01-02", "001", "s/2020-01-02/001"),
        ("lab/Subjects/s/2020-01-01/001", "t/2020-01-02", "1", "lab/Subjects/t/2020-01-02/1"),
        ("lab/Subjects/s/2020-01-01/001", "lab/Subjects/t/2020-01-02", "003", "lab/Subjects/t/2020-01-02/003"),
        ("s/2020-01-01/001", "", "2", None),  # chunks of arrays have such names
        ("s/2020-01-01/001", "", "alf", None),
        ("s/2020-01-01/001", "alf", "002", None),
        ("s/2020-01-01/001", "2020-01-02", "raw", None),
        ("s/2020-01-01/001", "2020-02-30", "001", None),
    ],
)
def test_a_session_that_was_dropped_on_another_one_is_told_from_a_collection(session, collection, name, place):
    assert nested_session(session, collection, name) == place
