"""Looking for known sessions on disk: by them the guard tells the right disk from another one."""

import pytest

from alfwatchd.scan.known_data import Listed, look_for
from alfwatchd.tree.known_sample import KnownSession
from kit.trees import write

S1, T1 = "s/2020-01-01/001", "t/2020-01-01/001"


def test_nothing_is_known_of_an_empty_list():
    assert Listed().is_empty()
    assert not Listed([KnownSession((S1,))]).is_empty()


def test_only_sessions_of_the_mount_are_asked_for():
    """A mount below the root holds some of the sessions; those elsewhere say nothing of it."""
    known = Listed([KnownSession((S1,)), KnownSession((T1,))])
    assert known.sample(lambda path: path.startswith("t/")) == [KnownSession((T1,))]


@pytest.mark.parametrize("wrong", [0, 1])
def test_names_and_inodes_that_are_there_are_counted(tmp_path, wrong):
    write(tmp_path, f"{S1}/", f"{T1}/", "file")
    ino = (tmp_path / S1).stat().st_ino + wrong
    sessions = [
        KnownSession(("lab/x", S1), ino),
        KnownSession((T1,)),
        KnownSession(("gone",), 5),
        KnownSession(("file",), 7),
    ]
    seen = look_for(str(tmp_path), sessions)
    assert (seen.n_known, seen.n_named, seen.n_numbered, seen.n_same) == (4, 3, 1, 1 - wrong)


def test_a_path_that_no_disk_can_have_is_not_there(tmp_path):
    """Tables of another program may hold any text."""
    assert look_for(str(tmp_path), [KnownSession(("a\0b",)), KnownSession(("x" * 5000,))]).n_named == 0
