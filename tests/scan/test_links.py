"""Where a link leads is found out before anything behind it is looked at, and a link with data behind it is told."""

import os

import pytest

from alfwatchd.alf.grammar import Kind
from alfwatchd.scan.links import Target, Where, find_target, say_not_followed, say_second_level
from kit.trees import fast_folder, write


@pytest.fixture
def root():
    with fast_folder() as folder:
        write(folder, "root/lab/Subjects/", "root2/x", "server/Subjects/m/2020-01-01/001/alf/a.b.c", "notes/read.txt")
        yield folder / "root"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("../../server", Where.OUTSIDE),
        ("../../root2", Where.OUTSIDE),  # its name begins as that of the root
        ("../lab", Where.INSIDE),
        ("..", Where.ABOVE),
        ("../..", Where.ABOVE),
        ("/", Where.ABOVE),
        ("nowhere", Where.NOWHERE),
        ("link", Where.NOWHERE),
        ("../../notes/read.txt", Where.NO_FOLDER),
        ("../../notes/read.txt/x", Where.NOWHERE),
        ("x" * 300, Where.UNKNOWN),
    ],
)
def test_where_a_link_leads(root, text, where):
    (root / "lab/link").symlink_to(text)
    fd = os.open(root / "lab", os.O_RDONLY)
    try:
        found = find_target(str(root), "lab/link", fd)
    finally:
        os.close(fd)
    assert found.where is where
    if where in (Where.OUTSIDE, Where.INSIDE):
        assert (found.path, found.ino) == (os.path.realpath(root / "lab/link"), (root / "lab/link").stat().st_ino)


@pytest.mark.parametrize(
    ("target", "kind", "is_told"),
    [
        ("server", Kind.TOP, True),
        ("server/Subjects/m", Kind.TOP, True),
        ("notes", Kind.TOP, False),  # people keep links to all sorts of folders at the top
        ("notes", Kind.SUBJECTS, True),
        ("notes", Kind.SUBJECT, True),
        ("server/Subjects/m/2020-01-01/001/alf", Kind.COLLECTION, True),
        ("notes", Kind.COLLECTION, False),
    ],
)
def test_only_links_with_data_behind_them_are_told(root, target, kind, is_told):
    (root / "link").symlink_to(root.parent / target)
    where = Target(Where.OUTSIDE, str(root.parent / target))
    found = say_not_followed(str(root), "link", kind, where, lambda _: False)
    assert [(problem.kind, problem.path) for problem in found] == [("link_not_followed", "link")] * is_told
    assert all(str(root.parent / target) in problem.message for problem in found)
    assert not say_not_followed(str(root), "link", Kind.COLLECTION, where, lambda _: True)


def test_a_second_level_is_told_with_the_target():
    (problem,) = say_second_level("lab/link", Target(Where.OUTSIDE, "/srv/third"))
    assert (problem.kind, "/srv/third" in problem.message) == ("link_not_followed", True)
