"""What a symbolic link leads to is found, so that no prune leaves a link that leads nowhere."""

import contextlib
import os
import pwd

import pytest

from alfwatchd.errors import PruneRefused, RootOffline
from alfwatchd.prune.links import find_link_targets
from kit.prune import S1, S2, SPIKES, TRIALS, write
from kit.upstream import folder_of_nobody


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    write(root, f"{S1}/{SPIKES}", f"{S1}/{TRIALS}", f"{S1}/README.txt", f"{S2}/{SPIKES}", ".hidden/deep/er/file")
    return root


def mark(path):
    about = path.stat()
    return about.st_dev, about.st_ino


LINKS = [
    # story, link, its text, what is protected
    ("a dataset", "link", f"{S1}/{SPIKES}", [f"{S1}/{SPIKES}"]),
    ("no dataset", f"{S2}/link", "../001/README.txt", [f"{S1}/README.txt"]),
    ("a collection", f"{S2}/alf/link", "../../001/alf", [f"{S1}/alf"]),
    ("a session", "s/2020-01-01/007", "001", [S1]),
    ("a date", "s/2021-01-01", "2020-01-01", ["s/2020-01-01"]),
    ("a subject", "t", "s", ["s"]),
    ("from a hidden folder", ".hidden/deep/er/link", f"../../../{S1}", [S1]),
    ("from a name that is no ALF", "my data (old)/link", f"../{S1}", [S1]),
    ("the root", "link", ".", ["."]),
    ("a way through a folder", "link", f"{S1}/alf/../{TRIALS}", [f"{S1}/{TRIALS}", f"{S1}/alf"]),
    ("a way through a folder after a dot", "link", f"{S1}/./alf/./../{TRIALS}", [f"{S1}/{TRIALS}", f"{S1}/alf"]),
    ("nothing", "link", "nowhere", []),
    ("itself", "link", "link", []),
    ("a device", "link", "/dev/null", []),
]


@pytest.mark.parametrize(("link", "text", "protected"), [case[1:] for case in LINKS], ids=[case[0] for case in LINKS])
def test_every_kind_of_link_is_found(root, link, text, protected):
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(text)
    assert find_link_targets(root) == {mark(root / path) for path in protected}


def test_absolute_links_chains_and_links_to_the_outside(root, tmp_path):
    write(tmp_path, "outside/file")
    (root / "absolute").symlink_to(root / S2)
    (root / "outside").symlink_to(tmp_path / "outside/file")
    (root / "first").symlink_to("second")
    (root / "second").symlink_to(tmp_path / "third")
    (tmp_path / "third").symlink_to(root / S1 / TRIALS)
    assert find_link_targets(root) == {mark(root / S2), mark(tmp_path / "outside/file"), mark(root / S1 / TRIALS)}


def test_the_trash_at_the_top_is_left_out_and_no_other_folder_of_this_name(root):
    for folder in (".alfwatchd-trash", f"{S1}/.alfwatchd-trash"):
        (root / folder).mkdir()
    (root / ".alfwatchd-trash/link").symlink_to(root / S2)
    (root / S1 / ".alfwatchd-trash/link").symlink_to(root / S1 / TRIALS)
    assert find_link_targets(root) == {mark(root / S1 / TRIALS)}


@pytest.mark.parametrize("depth", [40, 300])
def test_deep_folders_are_walked(root, depth):
    n_open = len(os.listdir("/proc/self/fd"))
    deep = root / "/".join(["d"] * depth)
    deep.mkdir(parents=True)
    (deep / "link").symlink_to(root / S1)
    assert find_link_targets(root) == {mark(root / S1)}
    assert len(os.listdir("/proc/self/fd")) <= n_open


def test_what_cannot_be_looked_into_refuses(tmp_path):
    with folder_of_nobody() as nobody:
        (nobody.root / "closed").mkdir()
        (nobody.root / "closed").chmod(0)
        with nobody.become(), pytest.raises(PruneRefused, match=f"{nobody.root}/closed: cannot be read"):
            find_link_targets(nobody.root)
        (nobody.root / "link").symlink_to(tmp_path / "private/file")
        (nobody.root / "closed").rmdir()
        write(tmp_path, "private/file")
        (tmp_path / "private").chmod(0o700)
        with nobody.become(), pytest.raises(PruneRefused, match=f"{nobody.root}/link: cannot be read"):
            find_link_targets(nobody.root)


def test_a_closed_folder_of_fsck_is_no_reason_to_refuse(tmp_path):
    with folder_of_nobody() as nobody:
        for owner, refused in ((0, False), (pwd.getpwnam("nobody").pw_uid, True)):
            (nobody.root / "lost+found").mkdir(exist_ok=True)
            os.chown(nobody.root / "lost+found", owner, owner)
            (nobody.root / "lost+found").chmod(0)
            expected = pytest.raises(PruneRefused) if refused else contextlib.nullcontext()
            with nobody.become(), expected:
                assert find_link_targets(nobody.root) == frozenset()


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(RootOffline, match="nothing was deleted"):
        find_link_targets(tmp_path / "missing")


def test_a_way_through_a_link_outside_and_back_needs_what_it_passes(root, tmp_path):
    (tmp_path / "outer").symlink_to(root / S1 / "alf" / ".." / TRIALS)
    (root / "link").symlink_to(tmp_path / "outer")
    assert {mark(root / S1 / TRIALS), mark(root / S1 / "alf")} <= find_link_targets(root)


@pytest.fixture
def farm(root, tmp_path):
    """A server behind a link in the root, and in it a link back to a file in the root, and one to a third folder."""
    write(tmp_path, "server/Subjects/m/2020-01-01/001/x", "third/Subjects/y")
    (tmp_path / "server/Subjects/m/2020-01-01/001/back").symlink_to(root / S2 / SPIKES)
    (tmp_path / "server/Subjects/n").symlink_to(tmp_path / "third")
    (tmp_path / "third/Subjects/back").symlink_to(root / S1 / SPIKES)
    (root / "lab").symlink_to(tmp_path / "server")
    return root


def test_a_link_behind_a_followed_link_protects_what_it_leads_to(farm, tmp_path):
    """The data set behind the link would be lost: its file lies in the root, and no link in the root leads to it."""
    server, third = mark(tmp_path / "server"), mark(tmp_path / "third")
    assert find_link_targets(farm) == {server}
    assert find_link_targets(farm, follow_links=True) == {server, third, mark(farm / S2 / SPIKES)}


def test_only_links_in_the_layout_are_followed(farm, tmp_path):
    (farm / "my tools").symlink_to(tmp_path / "third")
    (farm / "above").symlink_to(tmp_path)
    assert mark(farm / S1 / SPIKES) not in find_link_targets(farm, follow_links=True)
