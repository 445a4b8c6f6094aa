"""A prune takes exactly what is planned and unchanged, and tells why the rest stays."""

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfwatchd import linux
from alfwatchd.alf import grammar
from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.errors import RootOffline
from alfwatchd.prune import executor
from alfwatchd.prune.plan import PlannedFile, PrunePlan
from alfwatchd.prune.survey import state_of
from alfwatchd.prune.walk import open_folder, open_root, place_of
from kit.prune import (
    CLUSTERS,
    LAB_S1,
    S1,
    S2,
    SPIKES,
    T1,
    TRIALS,
    apply,
    deleted,
    entries,
    go_on,
    kept,
    no_log,
    plan_for,
    write,
)

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def test_what_is_not_in_the_reference_goes(root):
    write(root, f"{S1}/{SPIKES}", f"{S1}/{TRIALS}", f"{S2}/{SPIKES}", f"{S2}/{TRIALS}", f"{T1}/{CLUSTERS}")
    lines = []
    outcome = apply(root, plan_for(root, [f"{S1}/{SPIKES}"]), log=lines.append)
    assert deleted(outcome) == [f"{S1}/{TRIALS}", f"{S2}/{TRIALS}", f"{S2}/{SPIKES}", f"{T1}/{CLUSTERS}"]
    assert outcome.removed == (S2, T1, "t/2020-01-02")
    assert (outcome.kept, outcome.stopped) == ((), None)
    assert outcome.n_bytes == sum(len(f"content of {path}") for path in deleted(outcome))
    assert [path for path in entries(root) if not (root / path).is_dir()] == [f"{S1}/{SPIKES}"]
    assert (root / "t").is_dir(), "a direct child of the root stays"
    size = len(f"content of {S1}/{TRIALS}")
    assert lines[0] == f"dataset deleted path='{S1}/{TRIALS}' file_size={size}"
    assert f"empty folder removed path='{S2}'" in lines
    sub_folders = [f"{S2}/alf/probe00", f"{S2}/alf", f"{T1}/alf"]
    assert len(lines) == len(outcome.deleted) + len(outcome.removed) + len(sub_folders)


# story, on disk, folders that go
FOLDERS = [
    ("no lab", [f"{S1}/{SPIKES}"], [S1, "s/2020-01-01"]),
    ("no lab, empty session", [f"{S1}/"], [S1, "s/2020-01-01"]),
    ("empty collections go along", [f"{S1}/alf/probe00/", f"{S1}/raw/.x/"], [S1, "s/2020-01-01"]),
    (
        "lab",
        [f"{LAB_S1}/{SPIKES}"],
        [LAB_S1, "lab/Subjects/u/2020-01-01", "lab/Subjects/u", "lab/Subjects"],
    ),
    ("another subject", [f"{LAB_S1}/", "lab/Subjects/t/"], [LAB_S1, "lab/Subjects/u/2020-01-01", "lab/Subjects/u"]),
    ("a file above the session", [f"{S1}/", "s/2020-01-01/notes.txt"], [S1]),
    ("an empty folder beside the session", [f"{S1}/", "s/2020-01-01/old/"], [S1]),
    ("a non-ALF file", [f"{S1}/{SPIKES}", f"{S1}/README.txt"], []),
    ("a non-ALF file with two dots", [f"{S1}/.secret.notes.txt"], []),
    ("hidden junk", [f"{S1}/{SPIKES}", f"{S1}/alf/.DS_Store"], []),
    ("a dataset in a folder that is no collection", [f"{S1}/my data/a.b.c"], []),
    ("too many empty folders in one another", [f"{S1}/" + "x/" * 40], []),
]


@pytest.mark.parametrize(("paths", "removed"), [case[1:] for case in FOLDERS], ids=[case[0] for case in FOLDERS])
def test_folders_go_only_if_empty(root, paths, removed):
    write(root, *[f"{path}x".removesuffix("x") for path in paths if not path.endswith("/")])
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
    before = entries(root)
    outcome = apply(root, plan_for(root))
    assert list(outcome.removed) == removed
    for path in removed:
        assert not (root / path).exists()
    if not removed:
        assert entries(root).keys() == before.keys() - set(deleted(outcome)), "its sub-folders stay as well"
        assert [reason.startswith("still holds") for reason in kept(outcome).values()] == [True]


def test_sessions_that_stay_keep_their_emptied_folders(root):
    write(root, f"{S1}/{SPIKES}", f"{S2}/{CLUSTERS}")
    outcome = apply(root, plan_for(root, [f"{S1}/"]))
    assert len(outcome.deleted) == 2
    assert (root / S1 / "alf/probe00").is_dir()
    write(root, f"{S2}/{CLUSTERS}")
    outcome = apply(root, plan_for(root, [f"{S1}/"], remove_empty_sessions=False))
    assert (len(outcome.deleted), outcome.removed) == (1, ())
    assert (root / S2 / "alf").is_dir()


def rewrite(file):
    file.write_text("longer than before, and other content than before, of another size")


def rewrite_same_size(file):
    file.write_text("x" * file.stat().st_size)
    os.utime(file, ns=(0, 1))


def touch(file):
    os.utime(file, ns=(0, 1))


def replace(file):
    """Put a file of the same size and time in its place; only the inode tells."""
    shutil.copy2(file, file.with_name("new"))
    file.with_name("new").replace(file)


def replace_by_link(file):
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def replace_by_fifo(file):
    file.unlink()
    os.mkfifo(file)


CHANGES = [rewrite, rewrite_same_size, touch, replace, replace_by_link, replace_by_folder, replace_by_fifo, Path.unlink]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_as_planned_stays(root, change):
    write(root, f"{S1}/{CLUSTERS}", f"{S1}/{TRIALS}")
    plan = plan_for(root)
    change(root / S1 / CLUSTERS)
    after_change = entries(root)
    outcome = apply(root, plan)
    assert deleted(outcome) == [f"{S1}/{TRIALS}"]
    assert (
        entries(root / S1 / "alf")
        == {
            path.removeprefix(f"{S1}/alf/"): what
            for path, what in after_change.items()
            if path.startswith(f"{S1}/alf/")
        }
        or not (root / S1).exists()
    )
    reason = "changed since the plan" if change in (rewrite, rewrite_same_size, touch, replace) else "regular file"
    assert ("gone" if change is Path.unlink else reason) in kept(outcome)[f"{S1}/{CLUSTERS}"]


def test_links_and_their_targets_stay(root, tmp_path):
    write(tmp_path, "outside/a.b.c", "outside/001/a.b.c")
    write(root, f"{S1}/{TRIALS}", f"{S2}/{TRIALS}", f"{T1}/{TRIALS}")
    (root / S1 / "a.b.c").symlink_to(tmp_path / "outside/a.b.c")
    (root / S2 / "alf").symlink_to(tmp_path / "outside")
    (root / T1).parent.joinpath("002").symlink_to(tmp_path / "outside/001")
    outside = entries(tmp_path / "outside")
    outcome = apply(root, plan_for(root))
    assert deleted(outcome) == [f"{path}/{TRIALS}" for path in (S1, S2, T1)]
    assert outcome.removed == (T1,)
    assert kept(outcome) == {S2: "still holds 'alf'"}
    assert entries(tmp_path / "outside") == outside
    assert (root / S1 / "a.b.c").is_symlink()


def test_other_hard_links_stay(root, tmp_path):
    write(root, f"{S1}/{TRIALS}")
    (root / S1 / CLUSTERS).parent.mkdir()
    os.link(root / S1 / TRIALS, root / S1 / CLUSTERS)
    os.link(root / S1 / TRIALS, tmp_path / "outside")
    outcome = apply(root, plan_for(root, [f"{S1}/{CLUSTERS}"]))
    assert deleted(outcome) == [f"{S1}/{TRIALS}"]
    assert (tmp_path / "outside").read_text() == (root / S1 / CLUSTERS).read_text() == f"content of {S1}/{TRIALS}"


def test_a_twin_stays(root):
    write(root, f"{S1}/{TRIALS}", f"s/2020-01-01/1/{TRIALS}")
    outcome = apply(root, plan_for(root))
    assert outcome.removed == (S1,)
    assert (root / "s/2020-01-01/1" / TRIALS).exists()


@pytest.mark.parametrize("remaining", [False, True])
def test_a_link_in_place_of_the_root_is_refused(root, tmp_path, remaining):
    write(root, f"{S1}/{TRIALS}")
    plan = plan_for(root)
    root.rename(tmp_path / "elsewhere")
    if remaining:
        root.symlink_to(tmp_path / "elsewhere")
    for call in (executor.preview_plan, lambda *args, **kwargs: executor.apply_plan(*args, **kwargs, log=no_log)):
        with pytest.raises(RootOffline, match="nothing was deleted"):
            call(root, plan, may_continue=go_on)
    assert (tmp_path / "elsewhere" / S1 / TRIALS).exists()


def forged_plan(root, files, folders):
    """Make a plan by hand, with all that the disk says."""
    sessions = {grammar.split_dataset(file.path)[0] for file in files if grammar.split_dataset(file.path)} | set(
        folders
    )
    places = {}
    with open_root(root) as root_fd:
        for session in sessions:
            with contextlib.suppress(OSError), open_folder(root_fd, session) as folder_fd:
                places[session] = place_of(folder_fd)
    return PrunePlan("0" * 16, str(root), "", "", None, 1, 1, files, folders, places=places)


# None of these can come out of make_plan; a prune must not rely on that.
FORGED = [
    "s/2020-01-01/001/../../../../outside/a.b.c",
    "s/2020-01-01/001/alf/../../../../../outside/a.b.c",
    "../2020-01-01/001/a.b.c",
    "/s/2020-01-01/001/alf/clusters.depths.npy",
    "s/2020-01-01/001//alf/clusters.depths.npy",
    "s/2020-01-01/001/./alf/clusters.depths.npy",
    "s/2020-01-01/001/notes.txt",
    "s/2020-01-01/001/my data/a.b.c",
    "s/a.b.c",
    "",
]


@pytest.mark.parametrize("path", FORGED)
def test_a_path_that_no_plan_holds_is_refused(root, tmp_path, path):
    write(root, f"{S1}/notes.txt", f"{S1}/my data/a.b.c", "s/a.b.c", f"{S1}/{CLUSTERS}")
    write(tmp_path, "outside/a.b.c", "2020-01-01/001/a.b.c")
    before = entries(tmp_path)
    target = Path(f"{root}/{path}")
    file = PlannedFile(path, state_of(linux.statx(str(target))))
    outcome = apply(root, forged_plan(root, (file,), ()))
    assert [item.path for item in outcome.kept] == [path]
    assert entries(tmp_path) == before


@pytest.mark.parametrize("folder", ["..", ".", "", "s", "s/2020-01-01", "../2020-01-01/001", f"{S1}/alf", "../outside"])
def test_a_folder_that_no_plan_holds_is_refused(root, tmp_path, folder):
    for path in (root / S1 / "alf", tmp_path / "outside", tmp_path / "2020-01-01/001"):
        path.mkdir(parents=True)
    before = entries(tmp_path)
    outcome = apply(root, forged_plan(root, (), (folder,)))
    assert [item.path for item in outcome.kept] == [folder]
    assert entries(tmp_path) == before


def test_a_link_in_a_plan_is_refused(root):
    write(root, f"{S1}/{TRIALS}", f"{S1}/notes.txt")
    path = f"{S1}/{CLUSTERS}"
    (root / path).parent.mkdir()
    (root / path).symlink_to(root / S1 / TRIALS)
    forged = PlannedFile(path, state_of(linux.statx(str(root / path))))
    assert deleted(apply(root, forged_plan(root, (forged,), ()))) == []


# pattern, datasets that stay, folders that go
EXCLUDED = [
    ("trials*", [], [S1, "s/2020-01-01"]),
    ("*.intervals.npy", [TRIALS], []),
    (f"/{S1}/", [TRIALS, CLUSTERS], []),
    ("/s/", [TRIALS, CLUSTERS], []),
    ("empty/", [], []),
]


@pytest.mark.parametrize(("pattern", "stay", "removed"), EXCLUDED)
def test_what_the_settings_exclude_meanwhile_stays(root, pattern, stay, removed):
    write(root, f"{S1}/{TRIALS}", f"{S1}/{CLUSTERS}")
    (root / S1 / "empty").mkdir()
    outcome = apply(root, plan_for(root), excluded=compile_exclude([pattern]))
    assert {path for path in (TRIALS, CLUSTERS) if (root / S1 / path).exists()} == set(stay)
    assert list(outcome.removed) == removed
    assert all("settings" in reason or "still holds" in reason for reason in kept(outcome).values())


class StopAfter:
    """A `may_continue` that lets a number of sessions pass."""

    def __init__(self, n_sessions):
        self.n_sessions = n_sessions

    def __call__(self):
        if self.n_sessions == 0:
            raise RootOffline("the root is away")
        self.n_sessions -= 1


SESSIONS = ["s/2020-01-01/001", "s/2020-01-01/2", "t/2020-01-01/001", LAB_S1, "lab/Subjects/t/2020-01-03/001"]
DATASETS = [SPIKES, CLUSTERS, TRIALS, "alf/#2021-01-01#/clusters.depths.npy"]
OTHERS = ["README.txt", "alf/.hidden", ".secret.notes.txt", "alf/notes.txt", "raw/", "alf/empty/.x/", "my data/a.b.c"]
LINKS = ["link.to.file@", "alf/link.to.file@", "linked folder@", "alf/linked@", "dangling.link.npy@"]
contents = st.sets(st.sampled_from(DATASETS + OTHERS + LINKS), max_size=6)
trees = st.dictionaries(st.sampled_from(SESSIONS), contents, max_size=5)


def build(tree, linked, top):
    """Make a tree and, beside it, what its links lead to: files and folders full of datasets."""
    write(top, "outside/a.b.c", "outside/folder/d.e.f", "outside/folder/001/a.b.c")
    for session, names in tree.items():
        (top / "root" / session).mkdir(parents=True)
        for name in names:
            path = top / "root" / session / name.removesuffix("@")
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            elif name.endswith("@"):
                target = "folder" if "linked" in name else "nothing" if "dangling" in name else "a.b.c"
                path.symlink_to(top / "outside" / target)
            else:
                write(top, f"root/{session}/{name}")
    for session in linked - tree.keys():
        (top / "root" / session).parent.mkdir(parents=True, exist_ok=True)
        (top / "root" / session).symlink_to(top / "outside/folder")
    (top / "root").mkdir(exist_ok=True)


def model(before, tree, reference, *, remove_empty_sessions):
    """Return the paths that a prune must leave, worked out on sets of paths."""
    listed = {(grammar.parse_session(session).eid_path, name) for session, names in reference.items() for name in names}
    difference = {
        f"{session}/{name}"
        for session, names in tree.items()
        for name in names & set(DATASETS)
        if (grammar.parse_session(session).eid_path, name) not in listed
    }
    left = before.keys() - difference
    for session in sorted(tree.keys() - reference.keys()) if remove_empty_sessions else ():
        inside = {path for path in left if path.startswith(f"{session}/")}
        if all(stat.S_ISDIR(before[path][0]) for path in inside):
            left -= inside | {session}
            folder = os.path.dirname(session)
            while "/" in folder and not any(path.startswith(f"{folder}/") for path in left):
                left -= {folder}
                folder = os.path.dirname(folder)
    return left


@settings(max_examples=150)
@given(
    tree=trees,
    reference=trees,
    linked=st.sets(st.sampled_from(SESSIONS), max_size=2),
    remove_empty_sessions=st.booleans(),
    n_sessions=st.integers(0, 5),
)
def test_exactly_the_difference_goes(tree, reference, linked, remove_empty_sessions, n_sessions):
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        root = top / "root"
        build(tree, linked, top)
        before, outside = entries(root), entries(top / "outside")
        listed = [f"{session}/" for session in reference]
        listed += [f"{session}/{name}" for session, names in reference.items() for name in names & set(DATASETS)]

        def plan():
            return plan_for(root, listed, remove_empty_sessions=remove_empty_sessions)

        first = apply(root, plan(), may_continue=StopAfter(n_sessions))
        second = apply(root, plan())
        expected = model(before, tree, reference, remove_empty_sessions=remove_empty_sessions)
        assert entries(root) == {path: before[path] for path in expected}
        assert entries(top / "outside") == outside
        gone = set(deleted(first)) | set(deleted(second)) | set(first.removed) | set(second.removed)
        assert {path for path in before.keys() - expected if before[path][0] != stat.S_IFDIR} <= gone
        assert gone.isdisjoint(expected)
        assert all((root / item.path).exists() for item in second.kept)
