"""What stays although it is not listed: what is newer, what links lead to, what has changed. On real files."""

import dataclasses
import os
import shutil
import time

import pytest

from alfwatchd import linux
from alfwatchd.errors import RootOffline
from alfwatchd.prune.candidates import CHANGED, GONE, LINKED, NEWER, Rules, look
from alfwatchd.prune.links import find_link_targets
from alfwatchd.prune.unlisted import Kept, UnlistedSession
from alfwatchd.tree.packed import unpack_signature
from kit.prune import CLUSTERS, S1, SPIKES, TRIALS, take_session, write

NO_RULES = Rules()


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    write(root, f"{S1}/{SPIKES}", f"{S1}/{CLUSTERS}", f"{S1}/{TRIALS}")
    return root


def candidates(root, path=S1):
    return [UnlistedSession(path, [*take_session(root, path).datasets()], is_removable=True)]


def find(root, rules=NO_RULES, sessions=None):
    """Return rel_paths of the files that may go, whether the folder may, and rel_path -> reason of what stays."""
    kept = Kept()
    n_open = len(os.listdir("/proc/self/fd"))
    found = look(root, sessions or candidates(root), rules, kept)
    assert len(os.listdir("/proc/self/fd")) <= n_open
    reasons = {item.path.removeprefix(f"{S1}/"): item.reason for item in kept.items}
    assert sum(kept.counts.values()) == len(kept.items)
    return {file.path.removeprefix(f"{S1}/") for file in found.files}, found.folders == [S1], reasons


@pytest.fixture
def after(root):
    """Rules by which what is there now may go, and what changes from now on stays."""
    time.sleep(0.05)
    rules = Rules(newest_ns=time.time_ns())
    time.sleep(0.05)
    return rules


ALL = {SPIKES, CLUSTERS, TRIALS}


def test_what_is_as_it_was_may_go_and_is_described(root):
    sessions = candidates(root)
    found = look(root, sessions, Rules(), Kept())
    assert {file.path for file in found.files} == {f"{S1}/{name}" for name in ALL}
    for file in found.files:
        now = linux.statx(str(root / file.path))
        assert dataclasses.astuple(file.state) == (now.dev, now.ino, now.size, now.mtime_ns, now.ctime_ns, now.btime_ns)
    place, about = found.places[S1], (root / S1).stat()
    assert (place.dev, place.ino, place.mount_id) == (about.st_dev, about.st_ino, linux.statx(str(root)).mount_id)


def copy_with_times(path):
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def touch(path):
    os.utime(path)


AGES = [
    # story, what happens, rel_paths that stay
    ("a file is written", lambda root: touch(root / S1 / TRIALS), {TRIALS}),
    ("the future", lambda root: os.utime(root / S1 / TRIALS, ns=(0, 1 << 62)), {TRIALS}),
    ("a copy that keeps its times", lambda root: copy_with_times(root / S1 / SPIKES), {SPIKES}),
    ("a mv of the session", lambda root: move_and_back(root / S1), ALL),
    ("a mv of a collection", lambda root: move_and_back(root / S1 / "alf/probe00"), {SPIKES, CLUSTERS}),
    ("a file comes to the session folder", lambda root: (root / S1 / "notes").touch(), ALL),
    ("a file comes to a collection", lambda root: (root / S1 / "alf/notes").touch(), {SPIKES, CLUSTERS}),
    ("a session comes beside it", lambda root: (root / S1).with_name("009").mkdir(), set()),
    ("a nightly cp -al", lambda root: [os.link(p, root / f"{p.name}.bak") for p in (root / S1).rglob("*.npy")], set()),
    ("a chmod of a file", lambda root: (root / S1 / TRIALS).chmod(0o600), set()),
]


def move_and_back(path):
    path.rename(path.with_name("998"))
    path.with_name("998").rename(path)


@pytest.mark.parametrize(("act", "stay"), [case[1:] for case in AGES], ids=[case[0] for case in AGES])
def test_what_is_newer_than_the_reference_stays(root, after, act, stay):
    if linux.statx(str(root)).btime_ns is None:
        pytest.skip("this file system records no birth times")
    act(root)
    files, goes, reasons = find(root, after)
    assert files == ALL - stay
    assert reasons == dict.fromkeys(stay, NEWER)
    assert goes == (not stay)
    assert find(root)[0] == ALL  # --newer


def test_without_birth_times_the_change_of_the_inode_counts(root, after, monkeypatch):
    real = linux.statx

    def without_birth(*args, **kwargs):
        return dataclasses.replace(real(*args, **kwargs), btime_ns=None)

    monkeypatch.setattr(linux, "statx", without_birth)
    (root / S1 / TRIALS).chmod(0o600)
    assert find(root, after)[2] == {TRIALS: NEWER}


def test_what_was_first_seen_after_the_reference_stays(root, after):
    seen = dataclasses.replace(after, first_seen={S1: after.newest_ns / 1e9 + 1})
    assert find(root, seen) == (set(), False, dict.fromkeys(ALL, NEWER))
    assert find(root, dataclasses.replace(seen, newest_ns=None))[0] == ALL
    assert find(root, dataclasses.replace(after, first_seen={S1: after.newest_ns / 1e9 - 1}))[0] == ALL


def test_a_session_folder_that_a_rig_has_just_made_stays(root, after):
    new = "s/2020-01-01/777"
    (root / new).mkdir()
    kept = Kept()
    found = look(root, [UnlistedSession(new, [], is_removable=True)], after, kept)
    assert (found.folders, [(item.path, item.reason) for item in kept.items]) == ([], [(new, NEWER)])


def test_an_empty_collection_that_was_just_made_keeps_its_session(root):
    (root / S1 / "raw/video").mkdir(parents=True)
    time.sleep(0.05)
    rules = Rules(newest_ns=time.time_ns())
    time.sleep(0.05)
    (root / S1 / "raw/video/left").mkdir()
    assert find(root, rules) == (ALL, False, {S1: NEWER})


LINKS = [
    # story, link, its text, rel_paths that stay
    ("a dataset", "s/2020-01-01/other", f"001/{TRIALS}", {TRIALS}),
    ("no dataset", "link", f"{S1}/README.txt", set()),
    ("a collection", "link", f"{S1}/alf", {SPIKES, CLUSTERS}),
    ("a session", "s/2020-01-01/007", "001", ALL),
    ("a date", "s/2021-01-01", "2020-01-01", ALL),
    ("a subject", "t", "s", ALL),
    ("the root", "link", ".", ALL),
    ("a hidden link", ".hidden", f"{S1}/{SPIKES}", {SPIKES}),
    ("a link in the session", f"{S1}/link", TRIALS, {TRIALS}),
]


@pytest.mark.parametrize(("link", "text", "stay"), [case[1:] for case in LINKS], ids=[case[0] for case in LINKS])
def test_what_a_link_leads_to_stays(root, link, text, stay):
    write(root, f"{S1}/README.txt")
    (root / link).symlink_to(text)
    datasets = [(name, value) for name, value in take_session(root, S1).datasets() if name in ALL]
    sessions = [UnlistedSession(S1, datasets, is_removable=True)]
    files, goes, reasons = find(root, Rules(protected=find_link_targets(root)), sessions)
    assert (files, reasons) == (ALL - stay, dict.fromkeys(stay, LINKED))
    assert goes == (not stay)


def test_a_link_to_an_empty_collection_keeps_the_session_folder(root):
    (root / S1 / "raw/empty").mkdir(parents=True)
    (root / "link").symlink_to(f"{S1}/raw/empty")
    assert find(root, Rules(protected=find_link_targets(root))) == (ALL, False, {S1: LINKED})


CHANGES = [
    ("written", lambda path: path.write_text("other"), CHANGED),
    ("touched", touch, CHANGED),
    ("replaced", copy_with_times, CHANGED),
    ("gone", os.unlink, GONE),
    ("a folder now", lambda path: (path.unlink(), path.mkdir()), CHANGED),
    ("a link now", lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")), CHANGED),
]


@pytest.mark.parametrize(("act", "reason"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_what_has_changed_since_it_was_listed_stays(root, act, reason):
    sessions = candidates(root)
    act(root / S1 / TRIALS)
    assert find(root, Rules(), sessions) == (ALL - {TRIALS}, False, {TRIALS: reason})


@pytest.mark.parametrize("folder", ["s", S1, f"{S1}/alf"])
def test_folders_that_are_links_now_are_not_followed(root, folder):
    sessions = candidates(root)
    (root / folder).rename(root.parent / "moved")
    (root / folder).symlink_to(root.parent / "moved")
    files, goes, reasons = find(root, Rules(), sessions)
    assert files == ({TRIALS} if folder.endswith("alf") else set())
    assert set(reasons.values()) == {"a folder on its path is gone or is a link now; links are not followed"}
    assert not goes


def test_a_root_that_is_not_there(root):
    sessions = candidates(root)
    root.rename(root.with_name("moved"))
    with pytest.raises(RootOffline, match="nothing was deleted"):
        find(root, Rules(), sessions)


def test_what_is_kept_is_listed_up_to_a_limit_and_counted_in_full():
    kept = Kept(most=2)
    for number in range(5):
        kept.add(f"a{number}", 1, f"near miss: detail {number}")
    kept.add("b", None, NEWER)
    assert ([item.path for item in kept.items], kept.counts) == (["a0", "a1"], {"near miss": 5, NEWER: 1})


def test_times_before_1677_and_after_2262_are_compared_as_rows_hold_them(root):
    os.utime(root / S1 / TRIALS, ns=(0, -(1 << 60)))
    session = candidates(root)
    assert unpack_signature(dict(session[0].files)[TRIALS]).mtime_ns == -(1 << 60)
    assert find(root, Rules(), session)[0] == ALL
