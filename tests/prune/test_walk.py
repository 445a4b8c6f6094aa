"""The way down from the root: through no link, past no protected folder, into no other session than the planned one."""

import errno
import os

import pytest

from alfwatchd.errors import RootOffline
from alfwatchd.prune import walk
from alfwatchd.prune.plan import SessionPlace
from kit.prune import CLUSTERS, S1, write

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root_fd(tmp_path):
    write(tmp_path, f"{S1}/{CLUSTERS}")
    with walk.open_root(tmp_path) as fd:
        yield fd


def inode_of(fd):
    return os.fstat(fd).st_ino


def test_a_folder_is_reached_step_by_step(root_fd, tmp_path):
    with walk.open_folder(root_fd, S1) as session_fd, walk.open_inside(session_fd, "alf") as alf_fd:
        assert inode_of(alf_fd) == (tmp_path / S1 / "alf").stat().st_ino
        with walk.list_entries(alf_fd) as entries:
            assert [entry.name for entry in entries] == ["clusters.depths.npy"]
    with walk.open_folder(root_fd, "") as same:
        assert inode_of(same) == inode_of(root_fd)


@pytest.mark.parametrize("level", ["s", "s/2020-01-01", S1, f"{S1}/alf"])
def test_no_link_is_followed_whatever_it_leads_to(root_fd, tmp_path, level):
    folder = tmp_path / level
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(OSError, match=r"^\[Errno") as caught, walk.open_folder(root_fd, f"{S1}/alf"):
        pass
    assert walk.reason(caught.value, "x") == "a folder on its path is gone or is a link now; links are not followed"


def test_a_root_that_is_a_link_or_missing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path / "link", tmp_path / "missing"):
        with pytest.raises(RootOffline, match="nothing was deleted"), walk.open_root(path):
            pass


def test_only_the_session_folder_that_was_planned_is_opened(root_fd):
    with walk.open_folder(root_fd, S1) as fd:
        place = walk.place_of(fd)
    with walk.open_session(root_fd, S1, place) as fd:
        assert walk.place_of(fd) == place
    others = [None, SessionPlace(place.mount_id + 1, place.dev, place.ino)]
    others += [SessionPlace(place.mount_id, place.dev + 1, place.ino), SessionPlace(place.mount_id, place.dev, 1)]
    for other in others:
        with pytest.raises(OSError, match="than when the plan was made"), walk.open_session(root_fd, S1, other):
            pass


@pytest.mark.parametrize("level", ["s", S1, f"{S1}/alf"])
def test_a_protected_folder_is_not_passed(root_fd, tmp_path, level):
    about = (tmp_path / level).stat()
    protected = {(about.st_dev, about.st_ino)}
    with pytest.raises(OSError, match=walk.PROTECTED), walk.open_folder(root_fd, f"{S1}/alf", protected):
        pass


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOENT, "is gone already"),
        (errno.ELOOP, "links are not followed"),
        (errno.EROFS, "the daemon's user may not write there"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_person_reads_why_a_file_stays(code, said):
    assert said in walk.reason(OSError(code, os.strerror(code)), "the daemon's user")
