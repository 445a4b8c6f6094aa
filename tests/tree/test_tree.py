"""The tree mirrors what listings show, in whatever order they come; a row goes only when its file is gone."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.alf.grammar import Kind
from alfwatchd.tree.folder import NOT_WATCHED, Changes, Listing, LookResult
from alfwatchd.tree.packed import SIGNATURE_SIZE, PackedFiles, digest_of, pack_signature, unpack_signature
from alfwatchd.tree.rows import Problem
from alfwatchd.tree.sessions import Tables
from alfwatchd.tree.tree import Tree

SESSION = "s/2020-01-01/001"
MD5 = bytes(range(16))


def sig(size, mtime=0, inode=0, ctime=0):
    return pack_signature(size, mtime, inode, False, ctime)


def md5(value):
    return hashlib.md5(value).digest()


def listing(folders=None, files=None, **more):
    """Make a listing; `folders` maps names to inodes, `files` maps names to sizes or signatures."""
    signatures = {name: sig(size) if isinstance(size, int) else size for name, size in (files or {}).items()}
    return Listing(1, 1, folders=dict(folders or {}), packed=PackedFiles.pack(signatures), **more)


def grown(*collections, session=SESSION, files=()):
    """Return a tree with one session and these folders in it, and the session's folder; nothing is touched."""
    tree = Tree("root")
    *above, number = session.split("/")
    folder = tree.root
    for name in (*above, number):
        tree.apply(folder, listing({name: 1}))
        folder = folder.children[name]
    tree.apply(folder, listing(dict.fromkeys(collections, 1), dict(files)))
    tree.take_touched()
    return tree, folder


def rows(tree):
    """Return session path -> rel_path -> row value, of all sessions in the tree."""
    sessions = [folder for folder in tree.root.walk() if folder.kind is Kind.SESSION]
    tree.touched.update(sessions)
    return {session.path: dict(session.datasets()) for session in tree.take_touched()[0]}


def watches(tree):
    """Return watch descriptor -> folders that claim it."""
    return {wd: tree.claims.watched_by(wd) for wd in tree.claims}


def n_bytes(folder):
    return folder.rows.packed.n_bytes if folder.rows else 0


def touched(tree):
    sessions, dropped = tree.take_touched()
    return {session.path for session in sessions}, dropped


# New and gone folders and files.


def test_kinds_paths_and_collections_follow_the_layout():
    tree = Tree("root")
    path = "lab/Subjects/s/2020-01-01/001/alf/probe00"
    folder = tree.root
    for name in path.split("/"):
        (folder,), _, _ = tree.apply(folder, listing({name: 1}))
    kinds = [each.kind for each in tree.root.walk()]
    assert kinds == [
        Kind.ROOT, Kind.TOP, Kind.SUBJECTS, Kind.SUBJECT, Kind.DATE, Kind.SESSION, Kind.COLLECTION, Kind.COLLECTION
    ]  # fmt: skip
    assert (folder.path, folder.collection, tree.root.path) == (path, "alf/probe00", "")
    assert folder.session is tree.find("lab/Subjects/s/2020-01-01/001")
    assert folder.session.collection == ""
    assert tree.find("lab/Subjects").session is None
    assert (tree.find(path), tree.find(""), tree.find("lab/s"), tree.find(f"{path}/x/y")) == (
        folder, tree.root, None, None
    )  # fmt: skip


def test_walking_is_in_the_order_of_names_whatever_the_listing():
    tree, session = grown("raw", "alf", "#v1#")
    tree.apply(session.children["alf"], listing({"probe01": 1, "probe00": 2}))
    found = [folder.collection for folder in session.walk()]
    assert found == ["", "#v1#", "alf", "alf/probe00", "alf/probe01", "raw"]


def test_a_new_folder_must_be_scanned_and_a_known_one_not():
    tree, session = grown("alf")
    new, freed, changes = tree.apply(session, listing({"alf": 1, "raw": 2}))
    assert [folder.path for folder in new] == [f"{SESSION}/raw"]
    assert (freed, bool(changes)) == ([], False)


def test_a_new_session_is_a_row_before_its_files_are_known():
    tree, session = grown()
    tree.apply(session.parent, listing({"001": 1, "002": 2}))
    assert touched(tree) == ({"s/2020-01-01/002"}, [])


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({}, {"a.b.c": 1}, (1, 0, 0)),
        ({"a.b.c": 1}, {"a.b.c": 1}, (0, 0, 0)),
        ({"a.b.c": 1}, {"a.b.c": 2}, (0, 1, 0)),
        ({"a.b.c": sig(1, 5)}, {"a.b.c": sig(1, 6)}, (0, 1, 0)),
        ({"a.b.c": sig(1, 5, 7)}, {"a.b.c": sig(1, 5, 8)}, (0, 1, 0)),
        ({"a.b.c": 1}, {}, (0, 0, 1)),
        ({"a.b.c": 1, "d.e.f": 1}, {"d.e.f": 2, "g.h.i": 3, "j.k.l": 4}, (2, 1, 1)),
    ],
)
def test_a_listing_replaces_the_files(before, after, changes):
    tree, session = grown(files=before)
    _, _, found = tree.apply(session, listing(files=after))
    assert found == Changes(*changes)
    assert rows(tree) == {SESSION: listing(files=after).packed.unpack()}
    assert (session.rows is None) is (not after)
    assert n_bytes(session) == sum(unpack_signature(value).file_size for value in rows(tree)[SESSION].values())


@pytest.mark.parametrize("changes", [{}, {"a.b.c": 2}, {"a.b.c": 1, "d.e.f": 1}])
def test_only_a_session_that_changed_is_touched(changes):
    tree, session = grown(files={"a.b.c": 1})
    tree.apply(session, listing(files=changes))
    assert touched(tree) == ({SESSION}, [])
    tree.apply(session, listing(files=changes))
    assert touched(tree) == (set(), [])


def test_a_folder_that_is_gone_takes_all_below_it():
    tree, session = grown("alf", files={"a.b.c": 1})
    alf = session.children["alf"]
    tree.apply(alf, listing({"probe00": 1}, {"d.e.f": 1, "g.h.i": 1}))
    probe = alf.children["probe00"]
    tree.apply(probe, listing(files={"j.k.l": 1}))
    tree.take_touched()
    new, _, changes = tree.apply(session, listing(files={"a.b.c": 1}))
    assert (new, changes) == ([], Changes(0, 0, 3))
    assert rows(tree) == {SESSION: {"a.b.c": sig(1)}}
    assert [tree.is_attached(folder) for folder in (tree.root, session, alf, probe)] == [True, True, False, False]


def test_the_listing_of_a_folder_is_noted_with_it():
    tree, session = grown("alf")
    problem = Problem("unreadable", f"{SESSION}/x", "")
    tree.apply(session, Listing(3, 4, folders={"alf": 1}, n_ignored=5, problems=(problem,)))
    assert (session.dev, session.ino, session.n_ignored, session.problems) == (3, 4, 5, (problem,))
    tree.apply(session, listing({"alf": 1}))
    assert (session.n_ignored, session.problems) == (0, ())


# Replaced folders.


@pytest.mark.parametrize(
    ("name", "folders", "links", "replaced"),
    [
        ("the same inode", {"001": 1}, set(), False),
        ("another inode under the same name", {"001": 2}, set(), True),
        ("a link where a folder was", {"001": 1}, {"001"}, True),
    ],
)
def test_a_replaced_folder_is_forgotten_and_scanned_again(name, folders, links, replaced):
    tree, session = grown("alf", files={"a.b.c": 1})
    new, _, changes = tree.apply(session.parent, listing(folders, links=links))
    assert [folder.path for folder in new] == ([SESSION] if replaced else [])
    assert changes == Changes(0, 0, int(replaced))
    assert tree.is_attached(session) is not replaced
    assert rows(tree) == {SESSION: {} if replaced else {"a.b.c": sig(1)}}


def test_a_replaced_collection_touches_its_session():
    tree, session = grown("alf")
    tree.apply(session.children["alf"], listing(files={"a.b.c": 1}))
    tree.take_touched()
    tree.apply(session, listing({"alf": 2}))
    assert touched(tree) == ({SESSION}, [])


def test_the_entry_counts_where_something_is_mounted_on_a_folder():
    tree, session = grown(files={"a.b.c": 1})
    tree.apply(session, Listing(99, 2, packed=PackedFiles.pack({"a.b.c": sig(1)})))
    new, _, changes = tree.apply(session.parent, listing({"001": 1}))
    assert (new, bool(changes), session.ino) == ([], False, 2)


def test_the_link_flag_reaches_the_row():
    tree, session = grown(files={"a.b.c": 1})
    date = session.parent
    for links in ({"001"}, set()):
        tree.apply(date, listing({"001": 1}, links=links))
        ((row,), dropped) = tree.take_touched()
        assert (row.path, row.is_link, dropped) == (SESSION, bool(links), [])


# Names that could not be looked at.


def test_unknown_names_keep_what_was_known():
    tree, session = grown("alf", "raw", files={"a.b.c": 1, "d.e.f": 1})
    tree.apply(session.children["alf"], listing(files={"g.h.i": 1}))
    tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    unknown = {"alf", "a.b.c", "never.seen.c"}
    new, _, changes = tree.apply(session, listing(unknown=unknown))
    assert (new, changes) == ([], Changes(0, 0, 1))
    assert rows(tree) == {SESSION: {"a.b.c": sig(1) + md5(b"x"), "alf/g.h.i": sig(1)}}
    assert set(session.children) == {"alf"}


def test_unknown_sessions_keep_their_rows():
    tree, _ = grown(files={"a.b.c": 1})
    tree.apply(tree.root, listing(unknown={"s"}))
    assert touched(tree) == (set(), [])
    assert rows(tree) == {SESSION: {"a.b.c": sig(1)}}
    tree.apply(tree.root, listing())
    assert touched(tree) == (set(), [SESSION])


# Looks at single names.


@pytest.mark.parametrize(
    ("name", "look", "changes", "after"),
    [
        ("a new file", LookResult(files={"x.y.z": sig(3)}), (1, 0, 0), {"a.b.c": 1, "d.e.f": 1, "x.y.z": 3}),
        ("a file that grew", LookResult(files={"a.b.c": sig(3)}), (0, 1, 0), {"a.b.c": 3, "d.e.f": 1}),
        ("a file that is gone", LookResult(gone={"a.b.c"}), (0, 0, 1), {"d.e.f": 1}),
        ("one that never was", LookResult(gone={"x.y.z"}), (0, 0, 0), {"a.b.c": 1, "d.e.f": 1}),
        ("one that cannot be read", LookResult(unknown={"a.b.c"}), (0, 0, 0), {"a.b.c": 1, "d.e.f": 1}),
        ("all gone", LookResult(gone={"a.b.c", "d.e.f"}), (0, 0, 2), {}),
        ("one of each", LookResult({"x.y.z": sig(1), "d.e.f": sig(2)}, {"a.b.c"}), (1, 1, 1), {"d.e.f": 2, "x.y.z": 1}),
        ("nothing", LookResult(), (0, 0, 0), {"a.b.c": 1, "d.e.f": 1}),
    ],
)
def test_patch_changes_only_what_was_looked_at(name, look, changes, after):
    tree, session = grown("alf", files={"a.b.c": 1, "d.e.f": 1})
    tree.apply(session.children["alf"], listing(files={"g.h.i": 1}))
    tree.take_touched()
    assert tree.patch(session, look, set()) == Changes(*changes)
    assert touched(tree) == ({SESSION} if any(changes) else set(), [])
    assert rows(tree) == {SESSION: {**listing(files=after).packed.unpack(), "alf/g.h.i": sig(1)}}
    assert n_bytes(session) == sum(after.values())


# Digests.


def test_a_digest_is_taken_for_the_signature_it_was_made_of():
    tree, session = grown(files={"a.b.c": 1, "d.e.f": 1})
    assert tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x")), "d.e.f": (sig(2), md5(b"y"))})
    assert touched(tree) == ({SESSION}, [])
    assert rows(tree) == {SESSION: {"a.b.c": sig(1) + md5(b"x"), "d.e.f": sig(1)}}
    assert session.rows.packed.n_bytes == 2


@pytest.mark.parametrize("late", [("a.b.c", sig(2)), ("gone.b.c", sig(1))])
def test_a_late_digest_changes_nothing(late):
    name, signature = late
    tree, session = grown(files={"a.b.c": 1})
    assert not tree.set_digest(session, {name: (signature, md5(b"x"))})
    assert touched(tree) == (set(), [])


def test_a_digest_that_is_known_or_has_no_row_changes_nothing():
    tree, session = grown("alf", files={"a.b.c": 1})
    tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    tree.take_touched()
    assert not tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    assert not tree.set_digest(session.children["alf"], {"a.b.c": (sig(1), md5(b"x"))})
    assert touched(tree) == (set(), [])


def looked(files, rewritten=()):
    return lambda tree, folder: tree.patch(folder, LookResult(files), set(rewritten))


def listed(files, rewritten=()):
    return lambda tree, folder: tree.apply(folder, listing(files=files), set(rewritten))[2]


@pytest.mark.parametrize(
    ("name", "scan", "kept", "changed"),
    [
        ("listed again", listed({"a.b.c": sig(1), "d.e.f": sig(1)}), True, 0),
        ("listed with another size", listed({"a.b.c": sig(2), "d.e.f": sig(1)}), False, 1),
        ("listed with another time", listed({"a.b.c": sig(1, 9), "d.e.f": sig(1)}), False, 1),
        ("listed with another inode", listed({"a.b.c": sig(1, 0, 9), "d.e.f": sig(1)}), False, 1),
        ("listed with another file changed", listed({"a.b.c": sig(1), "d.e.f": sig(2)}), True, 1),
        ("listed and rewritten, same signature", listed({"a.b.c": sig(1), "d.e.f": sig(1)}, ["a.b.c"]), False, 1),
        ("listed and another one rewritten", listed({"a.b.c": sig(1), "d.e.f": sig(1)}, ["d.e.f"]), True, 0),
        ("looked at again", looked({"a.b.c": sig(1)}), True, 0),
        ("not looked at", looked({"d.e.f": sig(2)}), True, 1),
        ("rewritten, another signature", looked({"a.b.c": sig(2)}, ["a.b.c"]), False, 1),
        ("rewritten, same signature", looked({"a.b.c": sig(1)}, ["a.b.c"]), False, 1),
        ("another one rewritten", looked({"a.b.c": sig(1), "d.e.f": sig(1)}, ["d.e.f"]), True, 0),
        ("rewritten but not looked at", looked({"d.e.f": sig(1)}, ["a.b.c"]), True, 0),
    ],
)
def test_a_digest_stays_as_long_as_its_file(name, scan, kept, changed):
    tree, session = grown(files={"a.b.c": 1, "d.e.f": 1})
    tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    tree.take_touched()
    assert scan(tree, session) == Changes(0, changed, 0)
    assert touched(tree) == ({SESSION} if changed else set(), [])
    assert digest_of(rows(tree)[SESSION]["a.b.c"]) == (md5(b"x") if kept else b"")


@pytest.mark.parametrize("is_listed", [False, True])
@pytest.mark.parametrize(
    ("name", "after", "rewritten", "unwritten", "kept", "changes"),
    [
        ("attributes", sig(1, ctime=9), "", "a.b.c", True, Changes(renewed=1)),
        ("a hard link, of which no event tells", sig(1, ctime=9), "", "", False, Changes(renewed=1)),
        ("another file has other attributes", sig(1, ctime=9), "", "d.e.f", False, Changes(renewed=1)),
        ("written to in secret", sig(1, ctime=9), "a.b.c", "", False, Changes(0, 1, 0)),
        ("written to, and attributes", sig(1, ctime=9), "a.b.c", "a.b.c", False, Changes(0, 1, 0)),
        ("another time", sig(1, 8, ctime=9), "", "a.b.c", False, Changes(0, 1, 0)),
        ("another file", sig(1, 0, 8, 9), "", "a.b.c", False, Changes(0, 1, 0)),
        ("the target of a link", pack_signature(1, 0, 0, True, 9), "", "a.b.c", False, Changes(0, 1, 0)),
        ("nothing", sig(1), "", "a.b.c", True, Changes()),
    ],
)
def test_a_digest_outlives_another_change_time_only_if_nothing_was_written(
    name, after, rewritten, unwritten, kept, changes, is_listed
):
    """No table shows a change time: a nightly `chmod -R` must neither write rows nor read files again."""
    tree, session = grown(files={"a.b.c": 1, "d.e.f": 1})
    tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    tree.take_touched()
    found, told = {"a.b.c": after, "d.e.f": sig(1)}, ({rewritten} - {""}, {unwritten} - {""})
    if is_listed:
        assert tree.apply(session, listing(files=found), *told)[2] == changes
    else:
        assert tree.patch(session, LookResult(found), *told) == changes
    assert rows(tree)[SESSION]["a.b.c"] == after + (md5(b"x") if kept else b"")


def test_a_file_that_was_gone_has_no_digest():
    tree, session = grown(files={"a.b.c": 1})
    tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    tree.patch(session, LookResult(gone={"a.b.c"}), set())
    tree.patch(session, LookResult(files={"a.b.c": sig(1)}), set())
    assert rows(tree) == {SESSION: {"a.b.c": sig(1)}}


# Watch descriptors.


def test_a_watch_can_stand_for_two_folders_and_is_free_when_both_are_gone():
    tree, session = grown("alf", "raw")
    alf, raw = session.children["alf"], session.children["raw"]
    assert (tree.claims.claim(alf, 7), tree.claims.claim(raw, 7), tree.claims.claim(alf, 7)) == (None, None, None)
    assert set(tree.claims.watched_by(7)) == {alf, raw}
    assert len(tree.claims.watched_by(7)) == 2
    _, freed, _ = tree.apply(session, listing({"raw": 1}))
    assert (freed, tree.claims.watched_by(7), alf.wd) == ([], (raw,), NOT_WATCHED)
    _, freed, _ = tree.apply(session, listing())
    assert (freed, tree.claims.watched_by(7), watches(tree)) == ([7], (), {})


def test_a_watch_of_two_folders_dropped_together_is_freed_once():
    tree, session = grown("alf", "raw")
    tree.claims.claim(session.children["alf"], 7)
    tree.claims.claim(session.children["raw"], 7)
    _, freed, _ = tree.apply(session, listing())
    assert freed == [7]


def test_all_watches_below_a_dropped_folder_are_freed():
    tree, _ = grown("alf", "raw")
    for wd, folder in enumerate(tree.root.walk()):
        tree.claims.claim(folder, wd)
    _, freed, _ = tree.apply(tree.root, listing())
    assert sorted(freed) == [1, 2, 3, 4, 5]
    assert watches(tree) == {0: (tree.root,)}


def test_a_replaced_folder_frees_its_watch():
    tree, session = grown("alf")
    tree.claims.claim(session.children["alf"], 7)
    (alf,), freed, _ = tree.apply(session, listing({"alf": 2}))
    assert (freed, alf.wd) == ([7], NOT_WATCHED)


def test_a_watch_that_the_kernel_removed_is_not_freed_again():
    tree, session = grown("alf", "raw")
    alf, raw = session.children["alf"], session.children["raw"]
    tree.claims.claim(alf, 7)
    tree.claims.claim(raw, 7)
    assert set(tree.claims.forget_watch(7)) == {alf, raw}
    assert (alf.wd, raw.wd) == (NOT_WATCHED, NOT_WATCHED)
    assert tree.claims.claim(alf, 8) is None
    _, freed, _ = tree.apply(session, listing())
    assert freed == [8]


def test_all_watches_are_forgotten_with_their_watcher():
    tree, _ = grown("alf")
    for wd, folder in enumerate(tree.root.walk()):
        tree.claims.claim(folder, wd)
    tree.claims.forget_all()
    assert watches(tree) == {}
    assert {folder.wd for folder in tree.root.walk()} == {NOT_WATCHED}
    _, freed, _ = tree.apply(tree.root, listing())
    assert freed == []


# Rows of earlier tables whose folders cannot be read.


def restored():
    tree, session = grown()
    tree.restore(SESSION, None)
    tree.restore(f"{SESSION}/alf/probe00/a.b.c", 5)
    tree.restore(f"{SESSION}/d.e.f", 7)
    return tree, session


def test_restored_rows_are_rows():
    tree, _ = restored()
    ((row,), dropped) = tree.take_touched()
    assert (dict(row.datasets()), dropped) == ({"d.e.f": sig(7), "alf/probe00/a.b.c": sig(5)}, [])


def test_a_restored_row_has_its_digest_until_the_file_is_seen():
    tree, session = grown()
    tree.restore(f"{SESSION}/a.b.c", 5, MD5)
    assert rows(tree) == {SESSION: {"a.b.c": sig(5) + MD5}}
    tree.apply(session, listing(files={"a.b.c": sig(5, 1, 2)}))
    assert rows(tree) == {SESSION: {"a.b.c": sig(5, 1, 2)}}


def test_a_restored_row_does_not_replace_what_was_seen():
    tree, _ = grown(files={"a.b.c": sig(1, 2, 3)})
    tree.restore(f"{SESSION}/a.b.c", 9)
    assert rows(tree) == {SESSION: {"a.b.c": sig(1, 2, 3)}}


@pytest.mark.parametrize(
    ("path", "file_size"),
    [
        ("t/2020-02-30/001", None),
        ("t/2020-01-01", None),
        ("t/2020-01-01/001/alf/no-dataset", 1),
        ("t/2020-01-01/001/bad name/a.b.c", 1),
        ("t/2020-01-01/001//alf/a.b.c", 1),
        ("t/2020-01-01/a.b.c", 1),
    ],
)
def test_what_is_no_session_and_no_dataset_is_not_restored(path, file_size):
    tree, _ = grown(files={"a.b.c": 1})
    tree.restore(path, file_size)
    assert touched(tree) == (set(), [])
    assert rows(tree) == {SESSION: {"a.b.c": sig(1)}}


def test_restored_rows_stay_until_their_own_folder_is_listed():
    # The session can be read again and alf is there, but alf cannot be read yet: nothing proves its rows gone.
    tree, session = restored()
    (alf,), freed, changes = tree.apply(session, listing({"alf": 5}, {"d.e.f": 8}))
    assert (alf.path, freed, changes) == (f"{SESSION}/alf", [], Changes(0, 1, 0))
    assert rows(tree) == {SESSION: {"d.e.f": sig(8), "alf/probe00/a.b.c": sig(5)}}
    new, _, _ = tree.apply(session, listing({"alf": 5}, {"d.e.f": 8}))
    assert new == []
    tree.apply(session, listing({"alf": 6}, {"d.e.f": 8}))
    assert rows(tree) == {SESSION: {"d.e.f": sig(8)}}


def test_a_restored_session_learns_that_it_is_a_link():
    tree = Tree("root")
    tree.restore(f"{SESSION}/a.b.c", 1)
    tree.take_touched()
    tree.apply(tree.find("s/2020-01-01"), listing({"001": 1}, links={"001"}))
    ((row,), _) = tree.take_touched()
    assert (row.is_link, dict(row.datasets())) == (True, {"a.b.c": sig(1)})


def test_restored_rows_go_when_their_folder_is_gone():
    tree, session = restored()
    _, _, changes = tree.apply(session, listing())
    assert (changes, rows(tree)) == (Changes(0, 0, 2), {SESSION: {}})


# Problems and ignored entries, over all folders.


def test_problems_and_ignored_entries_go_with_their_folder():
    tree, session = grown("alf")
    problem = Problem("unreadable", "x", "")
    alf = session.children["alf"]
    tree.apply(alf, listing(n_ignored=2, problems=[problem]))
    tree.apply(session, listing({"alf": 1}, n_ignored=3))
    assert (tree.n_ignored, tree.with_problems) == (5, {alf})
    tree.apply(alf, listing(n_ignored=1))
    assert (tree.n_ignored, tree.with_problems) == (4, set())
    tree.apply(alf, listing(n_ignored=1, problems=[problem]))
    tree.apply(tree.root, listing())
    assert (tree.n_ignored, tree.with_problems) == (0, set())


@pytest.mark.parametrize("scan", [looked, listed])
def test_rewrites_without_a_change_of_signature_are_told(scan):
    # Also where the row has no digest: one may be on its way, or recorded in an earlier run.
    tree, session = grown(files={"a.b.c": 1, "d.e.f": 2, "g.h.i": 3, "j.k.l": 4})
    tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    files = {"a.b.c": sig(1), "d.e.f": sig(2), "g.h.i": sig(33), "j.k.l": sig(4), "new.b.c": sig(5)}
    scan(files, ["a.b.c", "d.e.f", "g.h.i", "new.b.c", "gone.b.c"])(tree, session)
    assert sorted(tree.rewritten) == [sig(1), sig(2)]


def test_a_rewritten_file_that_could_not_be_looked_at_keeps_its_digest():
    tree, session = grown(files={"a.b.c": 1})
    tree.set_digest(session, {"a.b.c": (sig(1), md5(b"x"))})
    tree.patch(session, LookResult(unknown={"a.b.c"}), {"a.b.c"})
    assert (tree.rewritten, rows(tree)) == ([], {SESSION: {"a.b.c": sig(1) + md5(b"x")}})


# What changed since the last time.


def test_a_session_dropped_and_made_again_is_not_dropped():
    tree, session = grown(files={"a.b.c": 1})
    tree.apply(session.parent, listing())
    (again,), _, _ = tree.apply(tree.find("s/2020-01-01"), listing({"001": 1}))
    tree.apply(again, listing(files={"d.e.f": 1}))
    sessions, dropped = tree.take_touched()
    assert [dict(row.datasets()) for row in sessions] == [{"d.e.f": sig(1)}]
    assert dropped == []


def test_a_session_touched_and_dropped_is_only_dropped():
    tree, session = grown(files={"a.b.c": 1})
    tree.apply(session, listing(files={"a.b.c": 2}))
    tree.apply(session.parent, listing())
    assert touched(tree) == (set(), [SESSION])
    assert touched(tree) == (set(), [])


def test_sessions_below_a_dropped_subject_are_dropped():
    tree, session = grown()
    tree.apply(session.parent, listing({"001": 1, "002": 1}))
    tree.apply(tree.root, listing())
    assert touched(tree) == (set(), [SESSION, "s/2020-01-01/002"])


def test_a_taken_session_does_not_change_afterwards():
    tree, session = grown("alf")
    tree.apply(session.children["alf"], listing(files={"a.b.c": 1}))
    ((taken,), _) = tree.take_touched()
    tree.set_digest(session.children["alf"], {"a.b.c": (sig(1), md5(b"x"))})
    tree.patch(session.children["alf"], LookResult(files={"d.e.f": sig(1)}), set())
    tree.apply(tree.root, listing())
    assert dict(taken.datasets()) == {"alf/a.b.c": sig(1)}


# Whatever happened before: listings of all folders, in any order, end in what is there.


@st.composite
def disks(draw, depth=0, *, revision=False):
    """Draw a folder: inode, whether it is a link, its files and its sub-folders."""
    names = [("s", "t"), ("2020-01-01", "2020-01-02"), ("1", "001"), ("alf", "#r#"), ("probe00",), ()][depth]
    if revision:
        names = ()
    files = st.dictionaries(st.sampled_from(["a.b.c", "d.e.f"]), st.integers(0, 2).map(sig), max_size=2)
    children = {
        name: draw(disks(depth + 1, revision=name == "#r#")) for name in names if depth == 1 or draw(st.booleans())
    }
    return {
        "inode": draw(st.integers(1, 2)),
        "link": depth == 3 and draw(st.booleans()),
        "files": draw(files) if depth >= 3 else {},
        "folders": children,
    }


def seen(disk):
    """Return what the scanner would list in a folder of a drawn disk."""
    folders = disk["folders"]
    links = {name for name, folder in folders.items() if folder["link"]}
    inodes = {name: each["inode"] for name, each in folders.items()}
    return Listing(1, disk["inode"], inodes, PackedFiles.pack(disk["files"]), links=links)


def at(disk, path):
    for name in path.split("/") if path else ():
        disk = disk["folders"].get(name) if disk is not None else None
    return disk


def whole(disk, path=""):
    """Return session path -> (link flag, rel_path -> signature), read off the drawn disk."""
    parts = path.split("/") if path else []
    if len(parts) < 3:
        found = {}
        for name, folder in disk["folders"].items():
            found |= whole(folder, "/".join([*parts, name]))
        return found
    return {path: (disk["link"], below(disk))}


def below(disk):
    files = dict(disk["files"])
    for name, folder in disk["folders"].items():
        files |= {f"{name}/{rel_path}": value for rel_path, value in below(folder).items()}
    return files


def settle(tree, disk, data):
    """List all folders in a drawn order, new ones included."""
    waiting = list(tree.root.walk())
    while waiting:
        folder = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        here = at(disk, folder.path)
        if tree.is_attached(folder) and here is not None:
            new, _, _ = tree.apply(folder, seen(here))
            waiting += new


def carry_over(tree, tables):
    sessions, dropped = tree.take_touched()
    for path in dropped:
        tables.drop_session(path)
    for session in sessions:
        tables.replace_session(session)


def assert_mirrors(tree, disk):
    found = rows(tree)
    expected = whole(disk)
    plain = {
        path: (tree.find(path).is_link, {name: value[: len(sig(0))] for name, value in files.items()})
        for path, files in found.items()
    }
    assert plain == expected
    values = [value for files in found.values() for value in files.values()]
    assert all(digest_of(value) in (b"", md5(value[: len(sig(0))])) for value in values)
    n_rows = sum(len(folder.rows.files) for folder in tree.root.walk() if folder.rows)
    assert n_rows == sum(len(files) for _, files in expected.values())


@given(st.lists(disks(), min_size=1, max_size=4), st.data())
def test_listings_in_any_order_end_in_what_is_there(history, data):
    tree, tables = Tree("root"), Tables()
    n_rows = 0
    for disk in history:
        for _ in range(data.draw(st.integers(0, 8))):
            folder = data.draw(st.sampled_from(list(tree.root.walk())))
            here = at(disk, folder.path)
            if here is not None:
                _, _, changes = tree.apply(folder, seen(here))
                n_rows += changes.added - changes.removed
            if tree.is_attached(folder) and folder.rows and data.draw(st.booleans()):
                tree.set_digest(
                    folder,
                    {name: (v[:SIGNATURE_SIZE], md5(v[:SIGNATURE_SIZE])) for name, v in folder.rows.files.items()},
                )
            if data.draw(st.booleans()):
                carry_over(tree, tables)
        assert n_rows == sum(len(folder.rows.files) for folder in tree.root.walk() if folder.rows)
    settle(tree, history[-1], data)
    carry_over(tree, tables)
    fresh, fresh_tables = Tree("root"), Tables()
    settle(fresh, history[-1], data)
    carry_over(fresh, fresh_tables)
    assert_mirrors(tree, history[-1])
    assert_mirrors(fresh, history[-1])
    without_digests(tree)
    carry_over(tree, tables)
    assert tables.snapshot().sessions == fresh_tables.snapshot().sessions
    assert tables.counts == fresh_tables.counts


def without_digests(tree):
    for folder in tree.root.walk():
        if folder.rows:
            files = {name: value[: len(sig(0))] for name, value in folder.rows.files.items()}
            tree.patch(folder, LookResult(files=files), set(files))


# File systems whose inode numbers do not last.

KNOWN = {"a.b.c": sig(1, 5, 7, 9) + MD5, "same.b.c": sig(1, 5, 8, 5) + MD5}
RENUMBERED = {"a.b.c": sig(1, 5, 17, 9), "same.b.c": sig(1, 5, 18, 5)}


def seen_again(made_up, files):
    """Return the rows after another listing of a folder on device 1, and what changed."""
    tree, session = grown(files=KNOWN)
    tree.made_up.update(made_up)
    _, _, changes = tree.apply(session, listing(files=files))
    return rows(tree)[SESSION], changes, tree


@pytest.mark.parametrize(
    ("made_up", "with_digest", "unproven"),
    [
        ({}, set(), []),
        ({2: True}, set(), []),
        ({1: True}, {"a.b.c", "same.b.c"}, []),
        ({1: False}, {"a.b.c", "same.b.c"}, ["same.b.c"]),  # its change time may be a copy of its modification time
    ],
)
def test_another_inode_number_alone_takes_no_digest_away_where_numbers_do_not_last(made_up, with_digest, unproven):
    """FUSE forgets numbers as the kernel does: each scan read everything again, and hashes were null until then."""
    found, changes, tree = seen_again(made_up, RENUMBERED)
    assert tree.take_unproven() == [(SESSION, name, RENUMBERED[name]) for name in unproven]
    assert tree.take_unproven() == []
    assert {name for name, value in found.items() if digest_of(value)} == with_digest
    assert {name: value[:SIGNATURE_SIZE] for name, value in found.items()} == RENUMBERED
    assert (changes.renewed, changes.changed) == (len(with_digest), 2 - len(with_digest))


@pytest.mark.parametrize("other", [sig(2, 5, 17, 9), sig(1, 6, 17, 9), sig(1, 5, 17, 10)])
def test_a_file_that_was_replaced_loses_its_digest_there_too(other):
    found, changes, tree = seen_again({1: True}, {**RENUMBERED, "a.b.c": other})
    assert digest_of(found["a.b.c"]) == b""
    assert (changes.renewed, changes.changed) == (1, 1)
    assert tree.take_rewritten() == ([], [sig(1, 5, 7, 9)])


def test_folders_with_other_numbers_keep_their_rows_and_are_looked_at():
    tree, session = grown(files=KNOWN)
    tree.made_up[1] = True
    date = session.parent
    new, _, changes = tree.apply(date, listing({"001": 99}))
    assert (new, bool(changes), rows(tree)[SESSION]) == ([session], False, KNOWN)


def test_what_nothing_proves_is_forgotten():
    """Another image was mounted in the place of the first: a file of equal size and time kept the old hash for ever."""
    tree, _ = grown(files=KNOWN)
    tree.forget_unproven(tree.root)
    assert {name: digest_of(value) for name, value in rows(tree)[SESSION].items()} == {"a.b.c": MD5, "same.b.c": b""}
    tree.forget_unproven(tree.root, is_any=True)
    assert {digest_of(value) for value in rows(tree)[SESSION].values()} == {b""}


@pytest.mark.parametrize(
    ("rewritten", "signature", "changed"),
    [
        (set(), sig(1, 6, 7, 10), True),
        ({"a.b.c"}, sig(1, 5, 7, 10), True),
        (set(), sig(1, 5, 7, 10), False),  # perhaps not: it is for the caller to find out
    ],
)
def test_files_that_were_written_to_are_told(rewritten, signature, changed):
    tree, session = grown(files=KNOWN)
    tree.patch(session, LookResult({"a.b.c": signature}), rewritten)
    assert tree.take_rewritten() == ([], [sig(1, 5, 7, 9)] * changed)
    assert tree.take_rewritten() == ([], [])
