"""Where a link leads is found out before anything behind it is looked at, and a link with data behind it is told."""

import os

import pytest

from alfwatchd.alf.grammar import Kind, kind_of
from alfwatchd.scan.links import Target, Where, find_target, say_inside, say_not_followed, say_second_level
from kit.trees import fast_folder, indexing, problems, scan_all, write


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


@pytest.mark.parametrize(
    ("link", "target", "is_told"),
    [
        ("lab/Subjects/m", "store/m", True),
        ("lab/Subjects/m", ".store/m", True),
        ("lab2", ".store2", True),  # its name cannot be that of a lab
        ("lab2", "lab", False),
        ("lab2", "store", False),  # no subject, and no lab either
        ("lab/Subjects/n", "m", False),
        ("lab/Subjects/n/2020-01-01", "m/2020-01-01", False),
        ("lab/Subjects/n/2020-01-01", "store/m/2020-01-01", True),
        ("m/2020-01-01/001/alf", "store/m/2020-01-01/001", True),
        ("m/2020-01-01/001/alf", "store/empty", False),
        ("m/2020-01-01/001/alf", "m/2020-01-01/002", False),
    ],
)
def test_data_that_only_a_link_in_the_root_leads_to_are_told(root, link, target, is_told):
    """A lab keeps all subjects in one hidden folder, and links them into the layout: there was no row and no word."""
    for store in (".store", "store"):
        write(root, f"{store}/m/2020-01-01/001/a.b.c")
    write(root, ".store2/Subjects/m/2020-01-01/001/a.b.c", "lab/Subjects/", "store/empty/notes.txt")
    write(root, *(f"m/2020-01-01/{number:03d}/a.b.c" for number in (1, 2)))
    found = say_told(root, link, target)
    assert [(problem.kind, problem.path) for problem in found] == [("link_not_followed", link)] * is_told
    assert all(f"a link to {target} in the root" in problem.message for problem in found)


def say_told(root, link, target):
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(root / target)
    kind = kind_of(link)
    assert kind is not None
    return say_inside(str(root), link, kind, Target(Where.INSIDE, str(root / target)), lambda _: False)


@pytest.mark.parametrize("follow_links", [False, True])
def test_the_scanner_tells_of_links_that_stay_in_the_root(root, follow_links):
    write(root, ".store/m/2020-01-01/001/a.b.c")
    (root / "lab/Subjects/m").symlink_to(root / ".store/m")
    with indexing(root, follow_links=follow_links) as indexer:
        scan_all(indexer)
        assert problems(indexer) == {"lab/Subjects/m": "link_not_followed", "": "nothing_found"}
