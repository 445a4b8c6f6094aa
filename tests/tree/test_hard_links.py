"""A file that is written through one of its names has the right row under all of them."""

import pytest

from alfwatchd.alf.grammar import Kind
from alfwatchd.tree.folder import Folder, Listing
from alfwatchd.tree.hard_links import HardLinks
from alfwatchd.tree.packed import PackedFiles, pack_signature
from kit.rows import folder_rows


def sig(size, inode, *, is_link=False):
    return pack_signature(size, 0, inode, is_link)


def listing(files, shared):
    return Listing(1, 1, packed=PackedFiles.pack(files), shared_inodes=set(shared))


@pytest.fixture
def root():
    """Return a tree of two folders: a holds files 1 and 2, b holds file 1 under another name, and file 3."""
    root = Folder("", Kind.ROOT, None, 1)
    root.children = {}
    for name, files in {
        "a": {"f.i.1": sig(5, 1), "f.i.2": sig(5, 2)},
        "b": {"o.t.1": sig(5, 1), "f.i.3": sig(5, 3)},
    }.items():
        child = root.children[name] = Folder(name, Kind.TOP, root, 1)
        child.rows = folder_rows("", files)
    return root


def stale(shared, root):
    return [folder.name for folder in shared.take_stale(root)]


@pytest.mark.parametrize(
    ("files", "shared", "expected"),
    [
        ({"x.y.z": sig(6, 1)}, {1}, ["a", "b"]),
        ({"x.y.z": sig(6, 1)}, {2}, []),
        ({"x.y.z": sig(5, 1)}, {1}, []),
        ({"x.y.z": sig(5, 1, is_link=True)}, {1}, []),
        ({"x.y.z": sig(6, 2), "y.y.z": sig(5, 3)}, {2, 3}, ["a"]),
        ({"x.y.z": sig(6, 9)}, {9}, []),
        ({"x.y.z": sig(6, 1)}, set(), []),
    ],
)
def test_rows_that_tell_something_else_than_was_seen_are_stale(root, files, shared, expected):
    found = HardLinks()
    found.note_listing(listing(files, shared), is_news=True)
    assert stale(found, root) == expected
    assert not found
    assert stale(found, root) == []


def test_what_is_no_news_makes_nothing_stale(root):
    found = HardLinks()
    found.note_listing(listing({"x.y.z": sig(6, 1)}, {1}), is_news=False)
    assert not found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"x.y.z": sig(5, 1)}, {}, ["a", "b"]),
        ({"x.y.z": sig(5, 1)}, {"x.y.z": sig(5, 3)}, ["a", "b"]),
        ({"x.y.z": sig(5, 1)}, {"x.y.z": sig(7, 1)}, []),
        ({"x.y.z": sig(5, 3)}, {}, []),
        ({}, {"x.y.z": sig(5, 1)}, []),
    ],
)
def test_a_name_that_goes_makes_the_other_names_of_a_shared_file_stale(root, old, new, expected):
    found = HardLinks()
    found.note_gone(folder_rows("", {"x.y.z": sig(5, 1)}), None)
    assert not found  # nobody knows yet that the file has other names
    found.note_listing(listing({"x.y.z": sig(5, 1)}, {1}), is_news=False)
    found.note_gone(folder_rows("", old), folder_rows("", new))
    assert bool(found) is bool(expected)
    assert stale(found, root) == expected


def test_what_was_seen_is_not_forgotten_for_a_name_that_goes(root):
    found = HardLinks()
    found.note_listing(listing({"x.y.z": sig(5, 1)}, {1}), is_news=True)
    found.note_gone(folder_rows("", {"y.y.z": sig(4, 1)}), None)
    assert stale(found, root) == []
