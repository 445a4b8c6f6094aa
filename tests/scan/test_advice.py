"""What is not indexed is told with the way to make it so, and the look for it is short, however large the junk is."""

import os
import re
import subprocess

import pytest

from alfwatchd.alf.printable import printable
from kit.trees import fast_folder, index_tree, listed, problems, write

S1, S2 = "s/2020-01-01/001", "s/2020-01-01/002"


@pytest.fixture
def root():
    with fast_folder() as folder:
        yield folder


def test_sessions_under_a_root_set_too_high_are_counted(root):
    for number in range(412):
        (root / f"data/lab/Subjects/s{number % 7}/2020-01-01/{number:03d}").mkdir(parents=True)
    (nothing, problem) = index_tree(root).problems()
    assert (nothing.kind, problem.kind, problem.path) == ("nothing_found", "misplaced", "data")
    assert nothing.message == "no session found in a root that is not empty: see the problem of data"
    assert problem.message == "412 sessions not indexed: did you mean root = .../data?"


def test_each_cause_has_its_own_count(root):
    write(root, f"{S1}/a.b.c", *(f"my-lab/Subjects/s/2020-01-01/00{number}/" for number in range(3)))
    write(root, "bad subject/2020-01-01/001/", "s/2020-02-30/001/", "s/2020-02-30/002/")
    found = {(problem.path, problem.message.split(":")[0]) for problem in index_tree(root).problems()}
    assert found == {
        ("my-lab", "3 sessions not indexed"),
        ("bad subject", "1 session not indexed"),
        ("s/2020-02-30", "2 sessions not indexed"),
    }


def test_advice_costs_no_walk_through_all_junk(root):
    for number in range(150):
        write(root, f"{S1}/bad (1)/{number}/a.b.c")
    for subject in "abc":
        (root / f"data/{subject}/2020-01-01").mkdir(parents=True)
        for number in range(700):
            (root / f"data/{subject}/2020-01-01/{number:03d}").mkdir()
    messages = {problem.path: problem.message for problem in index_tree(root).problems()}
    assert messages[f"{S1}/bad (1)"].startswith("at least 99 datasets not indexed")
    found = re.match(r"at least (\d+) sessions not indexed", messages["data"])
    assert 1900 < int(found[1]) < 2000


def test_advice_does_not_look_into_sessions(root):
    write(root, f"{S1}/a.b.c", *(f"data/s/2020-01-01/001/2020-01-01/{number:03d}/" for number in range(100)))
    (problem,) = index_tree(root).problems()
    assert problem.message.startswith("1 session not indexed")


def test_datasets_in_a_folder_that_one_cannot_open_are_counted(root):
    write(root, f"{S1}/bad (1)/a.b.c", f"{S1}/bad (1)/alf/probe00/a.b.c", f"{S1}/bad (1)/junk", f"{S1}/odd (2)/junk")
    (problem,) = index_tree(root).problems()
    assert (problem.kind, problem.path) == ("bad_collection", f"{S1}/bad (1)")
    assert problem.message.startswith("2 datasets not indexed: ")


@pytest.mark.parametrize(
    ("path", "shown"),
    [("s\udcff/x", "s\\udcff/x"), ("a\nb\tc", "a\\nb\\tc"), ("Ä/e\u0301/😀", "Ä/e\u0301/😀"), ("", "")],
)
def test_paths_in_messages_fit_into_one_line_of_utf_8(path, shown):
    assert printable(path) == shown


def test_forty_snapshots_do_not_hide_twelve_real_folders(root):
    """A NAS shows its snapshots as folders of the share. With them, the bounded look found no folder of a person."""
    for number in range(40):
        for day in range(10):
            path = f"snap {number:02d}/lab/Subjects/s/2020-01-{day + 10}"
            write(root, *(f"{path}/{session:03d}/" for session in range(6)))
    write(root, *(f"real {number:02d}/lab/Subjects/s/2020-01-01/001/" for number in range(12)))
    found = problems(index_tree(root))
    assert {f"real {number:02d}" for number in range(12)} <= found.keys()
    assert set(found.values()) == {"misplaced", "nothing_found"}


@pytest.mark.parametrize(
    "place", ["#recycle", "@Recycle", "$RECYCLE.BIN/S-1-5-21", ".Trash-1000/files", ".snapshot/h.0"]
)
def test_no_advice_leads_into_a_recycle_bin(root, place):
    """A lab that made a recycle bin its root would be shown what it has deleted."""
    write(root, f"{S1}/a.b.c", f"{place}/lab/Subjects/s/2020-01-01/001/a.b.c", f"{place}/2020-01-01/a.b.c")
    assert problems(index_tree(root)) == {}


def test_what_a_nas_keeps_in_each_session_is_no_bad_collection(root):
    write(root, f"{S1}/a.b.c", f"{S1}/@eaDir/a.b.c", f"{S1}/#recycle/a.b.c", f"{S1}/#bad rev#/a.b.c")
    assert problems(index_tree(root)) == {f"{S1}/#bad rev#": "bad_collection"}


def test_datasets_that_lie_in_the_date_folder_are_counted_once_for_each_date(root):
    """With one session a day, people leave the number out; then none of their data are there for One."""
    write(root, f"{S1}/a.b.c", "s/2020-01-02/a.b.c", "s/2020-01-02/notes.txt", "s/2020-01-02/alf/probe00/c.d.e")
    (problem,) = index_tree(root).problems()
    assert (problem.kind, problem.path) == ("no_number", "s/2020-01-02")
    assert problem.message.startswith("2 datasets not indexed: the layout is subject/date/number")
    assert problem.message.endswith("above them; make the folder 001 in the date folder, and move them into it")
    assert problems(index_tree(root, exclude=["/s/2020-01-02/"])) == {}
    assert problems(index_tree(root, exclude=["/s/2020-01-02/a*"])) == {}


def test_datasets_beside_a_session_are_not_sent_into_another_one(root):
    """`001` is a session, so that the advice to make it would have mixed two recordings."""
    write(root, f"{S1}/a.b.c", "s/2020-01-01/d.e.f")
    (problem,) = index_tree(root).problems()
    assert (problem.kind, problem.path) == ("no_number", "s/2020-01-01")
    assert problem.message.endswith(
        "move them into the session that they belong to, 001, or make the folder 002 in the date folder, and move them "
        "into it"
    )


def test_a_session_that_was_dropped_on_another_one_stays_a_collection_and_is_told(root):
    """One slip with the mouse hides a whole session: its files are in the collection `002/alf` of another one."""
    write(root, f"{S1}/a.b.c", f"{S1}/002/alf/a.b.c", f"{S1}/t/2020-01-02/001/a.b.c", f"{S1}/003/")
    indexer = index_tree(root)
    assert listed(indexer) == {S1: {"a.b.c", "002/alf/a.b.c", "t/2020-01-02/001/a.b.c"}}
    messages = {problem.path: problem.message for problem in indexer.problems() if problem.kind == "nested_session"}
    assert messages.keys() == {f"{S1}/002", f"{S1}/t/2020-01-02/001"}
    assert messages[f"{S1}/002"].endswith(f"move it to {S2}")
    assert messages[f"{S1}/t/2020-01-02/001"].endswith("move it to t/2020-01-02/001")
    write(root, f"{S2}/a.b.c")
    messages = {problem.path: problem.message for problem in index_tree(root).problems()}
    assert messages[f"{S1}/002"].endswith(f"move it to {S2}, where another one is: compare the two first")


def test_the_command_for_unpadded_numbers_gives_the_folders_the_names_that_one_opens(root):
    """Rigbox writes `.../1`, One looks in `.../001`: the rows are there, and no file loads."""
    write(root, "lab/Subjects/m1/2019-05-05/1/a.b.c")
    write(root, "lab/Subjects/m1/2019-05-06/12/a.b.c", "lab/Subjects/m1/2019-05-06/100/a.b.c", "m2/2019-05-05/1/d.e.f")
    write(root, "m2/2019-05-05/01/a.b.c", "-P/2019-05-05/1/a.b.c", "-/2019-05-05/1/a.b.c", "mäuse/2019-05-05/1/a.b.c")
    write(root, "m2/2019-05-06/1/a.b.c", "m2/2019-05-06/001/d.e.f")
    before = index_tree(root)
    told = {problem.path: problem.message for problem in before.problems() if problem.kind == "unpadded_number"}
    assert told.keys() == {"lab/Subjects/m1", "m2", "-P", "-", "mäuse"}
    assert told["lab/Subjects/m1"].startswith(
        "2 sessions listed whose files One cannot load: it looks in 2019-05-05/001"
    )
    strange = {**os.environ, "CDPATH": "/usr:/etc", "OLDPWD": "/usr"}  # `cd` looks there first
    for message in told.values():
        subprocess.run(["sh", "-c", message[message.index("(cd ") :]], cwd=root, env=strange, stderr=subprocess.DEVNULL)
    after = index_tree(root)
    assert problems(after) == {"m2/2019-05-05/1": "twin", "m2/2019-05-06/1": "twin"}
    assert {key.eid_path for key in keys(after)} == {key.eid_path for key in keys(before)}
    assert "lab/Subjects/m1/2019-05-06/012" in listed(after)


def keys(indexer):
    return [session.key for session in indexer.tables.snapshot().sessions.values()]
