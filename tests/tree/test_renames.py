"""A session folder that was renamed is found by its inode or its contents, and never by a guess."""

from dataclasses import replace

import pytest

from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.renames import contents_of, find_renames
from alfwatchd.tree.rows import Session
from kit.rows import folder_rows

FILES = {"a.b.c": (7, 100, 1), "d.e.f": (8, 200, 2)}


def session(path="s/2020-01-01/001", files=FILES, inode=10, digest=b""):
    rows = {name: pack_signature(size, time, ino, False) + digest for name, (size, time, ino) in files.items()}
    return Session(path, tuple(filter(None, [folder_rows("alf", rows)])), inode=inode)


def changed(**files):
    return {**FILES, **{name.replace("_", "."): value for name, value in files.items()}}


NEW, DIGEST = "t/2020-01-01/001", bytes(range(16))
COPY = {"a.b.c": (7, 100, 5), "d.e.f": (8, 200, 6)}
LATER = {"a.b.c": (7, 300, 3), "d.e.f": (8, 300, 4)}
# (story, what went, what came, whether one is the other)
CASES = [
    ("renamed", session(), session(NEW), True),
    ("renamed, and a file changed since", session(), session(NEW, changed(a_b_c=(9, 300, 1))), True),
    ("renamed, and files came", session(), session(NEW, changed(g_h_i=(9, 300, 9))), True),
    ("moved from one file system to another", session(), session(NEW, COPY, 11), True),
    ("inode numbers that do not last", session(), session(NEW, COPY, 0), True),
    ("an empty folder", session(files={}), session(NEW, files={}), True),
    ("another empty folder", session(files={}), session(NEW, files={}, inode=11), False),
    ("the inode of a folder that is gone was given again", session(), session(NEW, {"x.y.z": (7, 100, 1)}), False),
    ("likewise, and the files have the same names", session(), session(NEW, LATER), False),
    ("likewise, of a folder without files", session(files={}), session(NEW), False),
    ("other times", session(), session(NEW, {"a.b.c": (7, 100, 5), "d.e.f": (8, 201, 6)}, 11), False),
    ("other sizes", session(), session(NEW, {"a.b.c": (6, 100, 5), "d.e.f": (8, 200, 6)}, 11), False),
    ("other names", session(), session(NEW, {"a.b.c": (7, 100, 5), "d.e.g": (8, 200, 6)}, 11), False),
    ("other contents, as is known", session(digest=DIGEST), session(NEW, inode=11, digest=DIGEST[::-1]), False),
    ("the same contents, as is known", session(digest=DIGEST), session(NEW, inode=11, digest=DIGEST), True),
]  # fmt: skip


@pytest.mark.parametrize(("story", "old", "new", "is_same"), CASES, ids=[case[0] for case in CASES])
def test_renames(story, old, new, is_same):
    assert find_renames([old], [new]) == ([(old, new)] if is_same else [])


def test_many_at_once_and_two_equal_ones_are_no_renames():
    old = [session(f"s{number}/2020-01-01/001", {"a.b.c": (number, 5, number)}, number) for number in range(1, 9)]
    new = [replace(each, path=f"t{each.path}", inode=each.inode if each.inode % 2 else 0) for each in old]
    assert {(one.path, other.path) for one, other in find_renames(old, new)} == {
        (one.path, other.path) for one, other in zip(old, new, strict=True)
    }
    twins = [session("a/2020-01-01/001", inode=1), session("b/2020-01-01/001", inode=2)]
    assert find_renames(twins, [session(NEW, inode=3)]) == []
    assert find_renames([session(inode=3)], [replace(each, inode=0) for each in twins]) == []


def test_contents_follow_from_names_sizes_and_times_and_nothing_else():
    assert contents_of(session()) == contents_of(session(NEW, {"a.b.c": (7, 100, 77), "d.e.f": (8, 200, 88)}, 5))
    assert contents_of(session()) != contents_of(session(files=changed(a_b_c=(7, 101, 1))))
    assert contents_of(session(files={})) == b""
