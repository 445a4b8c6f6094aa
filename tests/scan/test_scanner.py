"""The scanner on real trees, through the indexer, as ``alfwatchd --once`` runs it."""

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from one.alf import spec

from alfwatchd.alf.misplaced import nested_session
from alfwatchd.alf.printable import printable
from alfwatchd.scan.scanner import GONE, Scanner, open_folder
from alfwatchd.tree.packed import Signature, unpack_signature
from kit.children import as_nobody, needs_root
from kit.trees import (
    Case,
    fast_folder,
    index_tree,
    indexing,
    listed,
    make_case,
    make_socket,
    make_targets,
    problems,
    read_cases,
    scan_all,
    write,
)

S1, S2 = "s/2020-01-01/001", "s/2020-01-01/002"


@pytest.fixture
def outside():
    """A folder beside the root."""
    with fast_folder() as folder:
        yield folder


@pytest.fixture
def root(outside):
    folder = outside / "root"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open():
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert {*os.listdir("/proc/self/fd")} <= {*before}


# All path cases.

CASES = read_cases()

# No session, and nothing that a person would take for one at a glance: junk, skipped and counted.
JUNK = {
    *(f"sub/{name}/001/obj.attr.npy" for name in ("2020-01-01x", "2020-01-01_ephys", "12020-01-01", "2020-01")),
    "sub/001/obj.attr.npy",
    ".trash/sub/2020-01-01/001/obj.attr.npy",
    ".trash/lab/Subjects/sub/2020-01-01/001/obj.attr.npy",
    "sub/2020-01-01/link.attr.npy",
    "sub/obj.attr.npy",
    "lab/obj.attr.npy",
    "lab/Subjects/sub/obj.attr.npy",
    "sessions.pqt.bak.1",
    "datasets.tmp.pqt",
    # Files, links and special files where a session or a folder above one would be.
    "lab/Subjects/my sub/2020-01-01/001",
    "sub/2020-01-01/001",
    "sub/2020-01-01/1",
    "lab/Subjects/sub/2020-01-01/001",
}
# Datasets in a date folder, and in no session of it.
UNNUMBERED = {
    *(f"sub/2020-01-01/{name}/obj.attr.npy" for name in ("001x", "x001", "one", "001.bak", "²", "001\udce9")),
    "sub/2020-01-01/obj.attr.npy",
    "sub/2020-01-01/1.2.3",
    "sub/2020-01-01/extra/001/obj.attr.npy",
    "lab/Subjects/sub/2020-01-01/alf/obj.attr.npy",
}
# Links to folders outside the root that hold data.
LINKED = {"sub", "lab/Subjects/sub", "lab", "ZM_2240/2020-01-23/001/coll", "ZM_2240/2020-01-23/001/a.b.zarr"}
# Folders of the layout with nothing in them.
EMPTY = {"sub/2020-01-01", "lab/Subjects"}


@pytest.fixture(scope="module")
def roots():
    """A folder for roots, with the targets of links beside them."""
    with fast_folder() as folder:
        make_targets(folder)
        yield folder


@pytest.mark.parametrize("case", CASES, ids=[f"{case.category}-{case.path!a}" for case in CASES])
def test_path_case(roots, case):
    root = Path(tempfile.mkdtemp(dir=roots))
    make_case(case, root)
    indexer = index_tree(root)
    assert listed(indexer) == case.expected
    found = [problem for problem in indexer.problems() if problem.kind != "nothing_found"]
    assert [(problem.kind, problem.path) for problem in found] == expected_problems(case, found)
    has_row = bool(case.rel_paths) or (case.session is not None and case.kind == "dir")
    assert indexer.tree.n_ignored == (0 if has_row or case.path in EMPTY else 1)
    assert all(problem.message.startswith(("1 ", "a link to ")) and problem.path.isprintable() for problem in found)


def expected_problems(case: Case, found):
    """Return what must be listed as (kind, path), by what ONE itself says about names and collections."""
    if case.path in LINKED:
        return [("link_not_followed", case.path)]
    if case.path in UNNUMBERED:
        return [("no_number", case.path[: case.path.index("2020-01-01") + 10])]
    if case.expected and len(case.session.rpartition("/")[2]) < 3:
        return [("unpadded_number", case.session.rsplit("/", 2)[0])]
    if case.session is None:
        is_junk = case.path in JUNK | EMPTY and not case.expected
        assert is_junk or len(found) == 1
        return [] if is_junk else [("misplaced", found[0].path)]  # where: tests/alf/test_misplaced.py
    *folders, name = case.path.removeprefix(f"{case.session}/").split("/")
    above = [("/".join(folders[:depth]), name) for depth, name in enumerate(folders)] if case.rel_paths else []
    if nested := [f"{at}/{inner}".strip("/") for at, inner in above if nested_session(case.session, at, inner)]:
        return [("nested_session", f"{case.session}/{path}") for path in nested]
    if case.rel_paths or case.kind not in ("file", "symlink") or not spec.is_valid(name):
        return []
    collection = spec.regex(f"({spec.COLLECTION_SPEC})?".replace("/)?)?", "/)?)?")).pattern
    for depth in range(1, len(folders) + 1):
        if not re.fullmatch(collection, "/".join([*folders[:depth], ""])):
            return [("bad_collection", printable(f"{case.session}/{'/'.join(folders[:depth])}"))]
    return []


def test_the_path_cases_are_all_there():
    assert len(CASES) == 470
    assert {case.path for case in CASES} >= JUNK | UNNUMBERED | EMPTY
    assert sum(case.session is None for case in CASES) > 80


def test_all_path_cases_in_one_tree(roots):
    """Cases do not disturb each other: a tree of all that can lie side by side has all their rows."""
    root = Path(tempfile.mkdtemp(dir=roots))
    made = []
    for case in CASES:
        try:
            make_case(case, root)
        except (FileExistsError, NotADirectoryError):  # another case has a file where this one needs a folder
            continue
        made.append(case)
    assert len(made) > 440
    expected = {}
    for case in made:
        if case.session is not None:
            expected[case.session] = expected.get(case.session, frozenset()) | case.rel_paths
    indexer = index_tree(root)
    twins = {problem.path for problem in indexer.problems() if problem.kind == "twin"}
    assert twins == {path for path in expected if any(is_twin(path, other) for other in expected)}
    assert listed(indexer) == {path: rel_paths for path, rel_paths in expected.items() if path not in twins}


def is_twin(path, other):
    (folder, number), (other_folder, other_number) = path.rsplit("/", 1), other.rsplit("/", 1)
    return folder == other_folder and int(number) == int(other_number) and len(number) < len(other_number)


# What is excluded.


def test_excluded_folders_and_files_are_left_out(root):
    write(root, f"{S1}/a.b.c", f"{S1}/alf/keep.b.c", f"{S1}/alf/drop.b.c", f"{S1}/raw_video_data/x.y.mp4")
    write(root, f"{S2}/a.b.c", "test_1/2020-01-01/001/a.b.c", "data/s/2020-01-01/001/a.b.c", f"{S1}/bad (1)/a.b.c")
    patterns = ["test_*/", "raw_video_data/", "drop.*", f"/{S2}/", "/data/", "bad*/"]
    indexer = index_tree(root, exclude=patterns)
    assert listed(indexer) == {S1: {"a.b.c", "alf/keep.b.c"}}
    assert (problems(indexer), indexer.tree.n_ignored) == ({}, 0)
    without = index_tree(root)
    assert without.tables.counts.n_datasets == indexer.tables.counts.n_datasets + 4
    assert problems(without) == {"data": "misplaced", f"{S1}/bad (1)": "bad_collection"}


def test_advice_leaves_out_what_is_excluded(root):
    write(root, "data/deep/old/s/2020-01-01/001/a.b.c", f"{S1}/bad (1)/old/a.b.c", f"{S1}/bad (1)/x.old.c")
    assert problems(index_tree(root)) == {"data/deep/old": "misplaced", f"{S1}/bad (1)": "bad_collection"}
    assert problems(index_tree(root, exclude=["old/", "*.old.*"])) == {}


def test_an_excluded_link_to_a_session_is_left_out(root, outside):
    write(outside / "elsewhere", "a.b.c")
    write(root, "s/2020-01-01/")
    (root / S1).symlink_to(outside / "elsewhere")
    assert listed(index_tree(root)) == {S1: {"a.b.c"}}
    assert listed(index_tree(root, exclude=[f"/{S1}/"])) == {}


# Links.


def test_rows_are_of_what_links_lead_to(root, outside):
    write(outside, "elsewhere.x.y", "session/alf/c.d.e")
    write(root, f"{S1}/a.b.c")
    (root / S1 / "link.b.c").symlink_to(outside / "elsewhere.x.y")
    (root / S2).symlink_to(outside / "session")
    sessions = index_tree(root).tables.snapshot().sessions
    found = {f"{path}/{name}": unpack_signature(v) for path, row in sessions.items() for name, v in row.datasets()}
    assert found == {
        f"{S1}/a.b.c": signature(root / S1 / "a.b.c"),
        f"{S1}/link.b.c": signature(outside / "elsewhere.x.y", is_link=True),
        f"{S2}/alf/c.d.e": signature(outside / "session/alf/c.d.e"),
    }
    assert {path: session.is_link for path, session in sessions.items()} == {S1: False, S2: True}


def signature(path, *, is_link=False):
    about = path.stat()
    return Signature(about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns)


def test_a_link_is_followed_one_level_only(root, outside):
    write(outside / "session", "a.b.c")
    write(outside / "more", "c.d.e")
    (outside / "session/linked").symlink_to(outside / "more")
    write(root, "s/2020-01-01/")
    (root / S1).symlink_to(outside / "session")
    indexer = index_tree(root)
    assert (listed(indexer), indexer.tree.n_ignored) == ({S1: {"a.b.c"}}, 1)


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_linked_session_that_leads_above_the_root_is_a_problem(root, target):
    write(root, f"{S1}/a.b.c")
    (root / S2).symlink_to((root / target).resolve())
    indexer = index_tree(root)
    assert (listed(indexer), problems(indexer)) == ({S1: {"a.b.c"}}, {S2: "link_loop"})


@pytest.mark.parametrize("target", ["../..", "..", ".", "001", "002"])
def test_a_linked_session_that_leads_to_a_folder_above_it_ends(root, target):
    write(root, f"{S1}/a.b.c", "s/2020-01-02/001/a.b.c")
    (root / S2).symlink_to(target)
    rows = listed(index_tree(root))
    assert (rows[S1], rows["s/2020-01-02/001"]) == ({"a.b.c"}, {"a.b.c"})
    assert rows.keys() - {S1, "s/2020-01-02/001"} <= {S2}
    assert len(rows.get(S2, ())) <= 2  # each file is seen through the link once


@pytest.mark.parametrize("target", ["/nonexistent", "002", "a.txt"])
def test_links_that_lead_to_no_folder_are_no_sessions(root, target):
    write(root, f"{S1}/a.b.c", "s/2020-01-01/a.txt")
    (root / S2).symlink_to(target)
    indexer = index_tree(root)
    assert (listed(indexer), problems(indexer), indexer.tree.n_ignored) == ({S1: {"a.b.c"}}, {}, 2)


def test_what_a_linked_session_leads_to_may_change(root, outside):
    write(outside, "one/a.b.c", "two/c.d.e")
    write(root, "s/2020-01-01/", "t/2020-01-01/001/")  # the loss of all sessions would be held
    link, other = root / S1, {"t/2020-01-01/001": frozenset()}
    with indexing(root) as indexer:
        for target, expected in [("one", {"a.b.c"}), ("two", {"c.d.e"}), ("none", None), ("one", {"a.b.c"})]:
            link.unlink(missing_ok=True)
            link.symlink_to(outside / target)
            scan_all(indexer)
            assert listed(indexer) == ({S1: expected} if expected else {}) | other
        link.unlink()
        shutil.copytree(outside / "one", link)
        scan_all(indexer)
        assert not indexer.tables.get(S1).is_link


@pytest.mark.parametrize("is_link", [False, True])
def test_only_a_folder_that_is_known_as_a_link_is_opened_through_one(root, outside, is_link):
    write(outside / "elsewhere", "a.b.c")
    write(root, "s/2020-01-01/")
    (root / S1).symlink_to(outside / "elsewhere")
    folder = index_tree(root).tree.find(S1)
    folder.is_link = is_link
    if not is_link:
        with pytest.raises(OSError, match="001") as refusal:
            open_folder(str(root), folder)
        assert refusal.value.errno in GONE
        return
    fd = open_folder(str(root), folder)
    assert os.listdir(fd) == ["a.b.c"]
    os.close(fd)


def test_a_folder_that_became_a_link_is_not_followed(root, outside):
    write(outside / "secret", "x.y.z")
    write(root, f"{S1}/alf/a.b.c", f"{S1}/a.b.c")
    with indexing(root) as indexer:
        scan_all(indexer)
        shutil.rmtree(root / S1 / "alf")
        (root / S1 / "alf").symlink_to(outside / "secret")
        # Only the folder itself is marked: that it is gone, its parent must tell.
        indexer.dirty.mark_listing([indexer.tree.find(f"{S1}/alf")], 0.0)
        while indexer.scan(10.0):
            pass
        assert listed(indexer) == {S1: {"a.b.c"}}
        assert problems(indexer) == {f"{S1}/alf": "link_not_followed"}


@needs_root
def test_what_is_behind_a_followed_link_that_cannot_be_read_now_stays():
    """The server refuses for a moment: an error of a disk or of rights says nothing about what is there."""

    def work(home):
        root, server = home / "root", home / "closed/server"
        write(server, "Subjects/m/2020-01-01/001/a.b.c")
        write(root, "lab/", f"{S1}/a.b.c")
        (root / "lab/Subjects").symlink_to(server / "Subjects")
        seen = []
        with indexing(root, follow_links=True) as indexer:
            for mode in (0o700, 0, 0o700):
                (home / "closed").chmod(mode)
                scan_all(indexer)
                seen.append((len(listed(indexer)), sorted(problem.kind for problem in indexer.problems())))
        return seen

    with fast_folder() as home:
        home.chmod(0o777)
        seen = as_nobody(lambda: work(home))
    assert (seen[0], seen[2]) == ((2, []), (2, []))
    assert (seen[1][0], "unreadable" in seen[1][1]) == (2, True)


# Files that are none.


def test_pipes_sockets_and_devices_never_block(root):
    write(root, f"{S1}/a.b.c", "s/2020-01-01/", "s/2020-01-02/")
    os.mkfifo(root / S1 / "pipe.b.c")
    os.mkfifo(root / S2)
    make_socket(str(root / S1 / "socket.b.c"))
    make_socket(str(root / "s/2020-01-01/003"))
    for name in ("pipe", "socket"):
        (root / S1 / f"linked_{name}.b.c").symlink_to(f"{name}.b.c")
        (root / f"s/2020-01-02/00{len(name) - 3}").symlink_to(root / S1 / f"{name}.b.c")
    (root / S1 / "null.b.c").symlink_to("/dev/null")
    (root / S1 / "tty.b.c").symlink_to("/dev/tty")
    if os.geteuid() == 0:
        os.mknod(root / S1 / "device.b.c", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: endless
    indexer = index_tree(root)
    assert (listed(indexer), problems(indexer)) == ({S1: {"a.b.c"}}, {})
    assert indexer.tree.n_ignored == 10 + (os.geteuid() == 0)


# Looks at single names.


def look(root, path, names, *, excluded=None):
    with indexing(root) as indexer:
        scan_all(indexer)
    folder = indexer.tree.find(path)
    fd = os.open(root / path, os.O_RDONLY)
    try:
        return Scanner(str(root), excluded).look(fd, folder, names)
    finally:
        os.close(fd)


def test_a_look_tells_what_is_there_and_what_is_certainly_not(root):
    write(root, f"{S1}/alf/a.b.c", f"{S1}/alf/folder.b.c/", f"{S1}/alf/not_alf", f"{S1}/alf/left.out.c")
    alf = root / S1 / "alf"
    os.mkfifo(alf / "pipe.b.c")
    (alf / "link.b.c").symlink_to("a.b.c")
    (alf / "loop.b.c").symlink_to("loop.b.c")
    (alf / "dangling.b.c").symlink_to("nothing")
    names = [entry.name for entry in alf.iterdir()] + ["gone.b.c", "b\udcff.b.c", "x" * 250 + ".b.c.d.e"]
    found = look(root, f"{S1}/alf", names, excluded=lambda path: path == f"{S1}/alf/left.out.c")
    assert {name: unpack_signature(value) for name, value in found.files.items()} == {"a.b.c": signature(alf / "a.b.c")}
    too_long = {"x" * 250 + ".b.c.d.e"}  # ENAMETOOLONG says nothing; such a name never comes from an event
    links = {"link.b.c", "loop.b.c", "dangling.b.c"}  # only a listing notes that there are some
    assert found.unknown == too_long | links
    assert found.gone == set(names) - found.files.keys() - too_long - links
    with indexing(root) as indexer:
        scan_all(indexer)
        assert {folder.path for folder in indexer.linked} == {f"{S1}/alf"}


# Folders that cannot be read.


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o444])
@pytest.mark.parametrize("path", [f"{S1}/alf", S1, "s/2020-01-01", "s"])
def test_what_cannot_be_read_keeps_its_rows_and_is_told(root, path, mode):
    write(root, f"{S1}/alf/a.b.c", f"{S1}/alf/probe00/d.e.f", f"{S2}/a.b.c", "t/2020-01-01/001/a.b.c")
    os.chown(root / path, 65534, 65534)

    def run():
        with indexing(root) as indexer:
            scan_all(indexer)
            before = listed(indexer)
            os.chmod(root / path, mode)
            scan_all(indexer)
            closed = listed(indexer), problems(indexer)
            os.chmod(root / path, 0o755)
            indexer.marks.retry_unreadable(20.0)
            while indexer.scan(30.0):
                pass
            return before, closed, listed(indexer), problems(indexer)

    before, (rows, found), again, found_again = as_nobody(run)
    assert len(before) == 3
    assert rows == before == again
    assert set(found.values()) == {"unreadable"}
    # A folder that can be listed but not searched shows what is in it, which then cannot be opened.
    assert path in found or mode == 0o444
    assert all(place == path or place.startswith(f"{path}/") for place in found)
    assert found_again == {}


@needs_root
def test_a_first_scan_goes_on_around_what_cannot_be_read(root):
    write(root, f"{S1}/alf/a.b.c", f"{S1}/a.b.c", f"{S2}/a.b.c", "closed/2020-01-01/001/a.b.c")
    for path in (f"{S1}/alf", S2, "closed"):
        os.chmod(root / path, 0o700)

    def run():
        indexer = index_tree(root)
        return listed(indexer), problems(indexer)

    rows, found = as_nobody(run)
    assert rows == {S1: {"a.b.c"}, S2: frozenset()}
    assert found == dict.fromkeys([f"{S1}/alf", S2, "closed"], "unreadable")


@needs_root
def test_files_need_not_be_readable(root):
    write(root, f"{S1}/a.b.c")
    os.chmod(root / S1 / "a.b.c", 0o600)
    assert as_nobody(lambda: listed(index_tree(root))) == {S1: {"a.b.c"}}


@needs_root
def test_junk_that_cannot_be_read_is_junk(root):
    write(root, f"{S1}/a.b.c", "lost+found/x", f"{S1}/bad (1)/a.b.c")
    for path in ("lost+found", f"{S1}/bad (1)"):
        os.chmod(root / path, 0o700)
    assert as_nobody(lambda: problems(index_tree(root))) == {}


def test_a_path_that_is_too_long_keeps_nothing_else_from_being_indexed(root):
    write(root, f"{S1}/a.b.c", f"{S2}/a.b.c")
    fd = os.open(root / S1, os.O_RDONLY)
    for _ in range(17):  # 17 * 250 > PATH_MAX
        os.mkdir("n" * 250, dir_fd=fd)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(os.open("deep.b.c", os.O_CREAT, dir_fd=below))
        os.close(fd)
        fd = below
    os.close(fd)
    indexer = index_tree(root)
    rows = listed(indexer)
    n_deep = len(rows[S1]) - 1
    assert (rows[S2], "a.b.c" in rows[S1]) == ({"a.b.c"}, True)
    assert 12 < n_deep < 17
    assert set(problems(indexer).values()) == {"unreadable"}
