"""One folder of the tree: what it is follows from its name and those above; a row of a session from its folders."""

import pytest

from alfwatchd.alf.grammar import Kind
from alfwatchd.tree.folder import Changes, Folder, Listing, compose, patch_session
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from kit.rows import folder_rows

S1 = "lab/Subjects/s/2020-01-01/001"


@pytest.mark.parametrize(
    ("path", "kind", "session", "collection"),
    [
        ("", Kind.ROOT, None, ""),
        ("lab", Kind.TOP, None, ""),
        ("lab/Subjects", Kind.SUBJECTS, None, ""),
        (S1.rpartition("/")[0], Kind.DATE, None, ""),
        (S1, Kind.SESSION, S1, ""),
        (f"{S1}/alf/#2020-01-01#", Kind.COLLECTION, S1, "alf/#2020-01-01#"),
    ],
)
def test_a_folder_knows_its_place(path, kind, session, collection):
    folder = Folder.at(path)
    assert (folder.path, folder.kind, folder.collection) == (path, kind, collection)
    assert (folder.session.path if folder.session is not None else None) == session


def test_a_name_without_a_place_in_the_layout_makes_no_folder():
    assert Folder.at(S1).child_kind("my data") is None
    with pytest.raises(AssertionError, match="has no place"):
        Folder.at("lab/Subjects/s/notes")


def grow():
    """Return a session folder with two collections, and their rows."""
    top, rows = Folder.at(S1), {}
    top.children = {}
    for name in ("raw", "alf"):
        child = top.children[name] = top.make_child(name, 1)
        child.rows = rows[name] = folder_rows(name, {f"a.{name}.npy": pack_signature(1, 2, 3, False)})
    return top, rows


def test_the_row_of_a_session_has_its_folders_in_the_order_of_names():
    top, rows = grow()
    assert compose(top) == Session(S1, (rows["alf"], rows["raw"]))


def test_a_row_with_another_folder_is_that_made_from_all_folders():
    top, _ = grow()
    before = compose(top)
    top.children["raw"].rows = other = folder_rows("raw", {"a.raw.npy": pack_signature(9, 9, 9, False)})
    for known in (before, None):
        assert patch_session(top, {"raw": other}, lambda _, known=known: known) == compose(top)


def test_counts_of_changes_add_up_and_a_new_change_time_is_shown_nowhere():
    changes = Changes(added=1, removed=2)
    changes += Changes(added=1, renewed=5)
    assert (changes.added, changes.changed, changes.removed, changes.renewed) == (2, 0, 2, 5)
    assert (bool(Changes()), bool(Changes(renewed=1)), Changes(renewed=1).are_shown) == (False, True, False)


def test_a_listing_with_anything_odd_is_not_plain():
    assert Listing(1, 2, {"alf": 3}, n_ignored=1).is_plain
    odd = {"links": {"x"}, "unknown": {"x"}, "has_links": True, "shared_inodes": {1}, "problems": ("x",)}
    assert not any(Listing(1, 2, **{name: value}).is_plain for name, value in odd.items())


def test_a_folder_behind_a_link_knows_it():
    """Prune must leave alone what it would reach through a link, however far above that link is."""
    lab = Folder.at("").make_child("lab", 1, is_link=True)
    session = lab.make_child("Subjects", 2).make_child("s", 3).make_child("2020-01-01", 4).make_child("001", 5)
    assert session.is_reached_by_link
    assert compose(session).is_link
    assert not lab.parent.is_reached_by_link
    assert Folder.at(S1, is_reached_by_link=True).make_child("alf", 1).is_reached_by_link
    assert not Folder.at(S1).is_reached_by_link
