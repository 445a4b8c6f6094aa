"""System calls that `os` does not offer, against what `os` says and what the kernel does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from alfwatchd import linux
from kit.children import in_child, is_alive
from kit.control import wait


def test_statx_tells_what_stat_tells_and_when_a_file_was_made(tmp_path):
    before = time.time_ns()
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    os.utime(path, ns=(1, 1_500_000_000_123_456_789))
    about, found = path.stat(), linux.statx(str(path))

    assert (found.dev, found.ino, found.mode, found.nlink) == (about.st_dev, about.st_ino, about.st_mode, 1)
    assert (found.uid, found.gid, found.size) == (about.st_uid, about.st_gid, 3)
    assert (found.mtime_ns, found.ctime_ns) == (about.st_mtime_ns, about.st_ctime_ns)
    assert found.btime_ns is None or abs(found.btime_ns - before) < 60e9
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert linux.statx("x", dir_fd=fd) == found
        assert linux.statx("", dir_fd=fd).ino == tmp_path.stat().st_ino
    finally:
        os.close(fd)


def test_statx_looks_at_a_link_or_through_it(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")

    assert linux.statx(str(tmp_path / "link")).ino == (tmp_path / "link").lstat().st_ino
    assert linux.statx(str(tmp_path / "link"), follow_symlinks=True).ino == (tmp_path / "x").stat().st_ino
    with pytest.raises(FileNotFoundError):
        linux.statx(str(tmp_path / "missing"))


def test_without_statx_there_is_no_birth_time(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    whole = linux.statx(str(tmp_path / "x"))
    plain = linux.plain_stat(str(tmp_path / "x"), linux.AT_FDCWD, follow_symlinks=False)

    assert (plain.ino, plain.mtime_ns, plain.btime_ns, plain.mount_id) == (whole.ino, whole.mtime_ns, None, None)


def test_open_in_mount_refuses_links_and_what_lies_above(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        os.close(linux.open_in_mount("a/b", os.O_PATH, dir_fd=fd))
        for path, code in (("link/b", errno.ELOOP), ("a/../..", errno.EXDEV)):
            with pytest.raises(OSError, match=r".") as raised:
                linux.open_in_mount(path, os.O_PATH, dir_fd=fd)
            assert raised.value.errno == code
    finally:
        os.close(fd)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_open_in_mount_refuses_a_bind_mount_of_the_same_file_system(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    script = (
        f"mount --bind {tmp_path}/a {tmp_path}/b && exec {os.sys.executable} -c "
        f"\"import os; from alfwatchd import linux; fd = os.open('{tmp_path}', os.O_RDONLY)\n"
        "try: linux.open_in_mount('b', os.O_PATH, dir_fd=fd)\nexcept OSError as e: print(e.errno)\""
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == str(errno.EXDEV), done.stderr


def test_rename_no_replace_never_overwrites(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            linux.rename_no_replace("a", "b", source_dir_fd=fd, target_dir_fd=fd)
        linux.rename_no_replace("a", "c", source_dir_fd=fd, target_dir_fd=fd)
    finally:
        os.close(fd)

    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"b": "b", "c": "a"}


def test_the_type_of_a_file_system_is_told(tmp_path):
    path = tmp_path / "x"
    path.touch()
    types = []
    for place in (path, "/proc/self/stat"):
        fd = os.open(place, os.O_RDONLY)
        types.append(linux.file_system_type(fd))
        os.close(fd)
    told = subprocess.run(["stat", "-f", "-c", "%t", path], check=True, capture_output=True, text=True).stdout
    assert types == [int(told, 16), 0x9FA0]
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.file_system_type(fd)


def test_a_lock_has_one_holder_until_its_last_descriptor_is_closed(tmp_path):
    """Two daemons that write the same tables would take each other's rows for damage."""
    path = tmp_path / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    copy = os.dup(first)
    try:
        assert linux.try_flock(first)
        assert linux.try_flock(copy)  # the same open file
        assert not linux.try_flock(second)
        os.close(first)
        assert not linux.try_flock(second)
    finally:
        os.close(copy)
    assert linux.try_flock(second)
    os.close(second)
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.try_flock(second)


def test_locked_bytes_keep_another_process_from_them_only(tmp_path):
    """SQLite locks bytes far behind the end of its file; a copy that is made meanwhile would be half of two states."""
    (tmp_path / "x").touch()

    def lock(start):
        with (tmp_path / "x").open("r+b") as file:
            linux.lock_bytes(file.fileno(), start, 10)

    with (tmp_path / "x").open("r+b") as file:
        linux.lock_bytes(file.fileno(), 0x40000000, 10)
        in_child(lambda: lock(0x4000000A))
        with pytest.raises(AssertionError, match="BlockingIOError"):
            in_child(lambda: lock(0x40000009))


def test_a_request_that_a_file_does_not_know_is_an_error(tmp_path):
    """Zeros are no identity of a file system: the caller must not take them for one."""
    with (tmp_path / "x").open("wb") as file, pytest.raises(OSError, match=r"Inappropriate ioctl|not supported"):
        linux.ioctl(file.fileno(), 0x5401, 60)  # TCGETS, which terminals know


def test_calls_of_inotify_return_descriptors_or_say_why_not(tmp_path):
    fd = linux.inotify_init()
    try:
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)
        wd = linux.inotify_add_watch(fd, bytes(tmp_path), 0x100)
        linux.inotify_rm_watch(fd, wd)
        with pytest.raises(OSError, match="Invalid argument"):
            linux.inotify_rm_watch(fd, wd)
        with pytest.raises(FileNotFoundError):
            linux.inotify_add_watch(fd, b"/nonexistent", 0x100)
    finally:
        os.close(fd)


def test_a_process_ends_with_its_parent():
    """Else the commands of a follower that was killed go on, and its successor starts them a second time."""
    code = f"""
import functools, os, subprocess, sys
from alfwatchd import linux
end = functools.partial(linux.end_with_parent, os.getpid())
child = subprocess.Popen(["sleep", "600"], preexec_fn=end)
print(child.pid, flush=True)
os.kill(os.getpid(), {signal.SIGKILL.value})
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    wait(lambda: not is_alive(int(done.stdout)), "the child is left behind")


def test_a_process_whose_parent_has_ended_already_ends_at_once():
    code = "from alfwatchd import linux; linux.end_with_parent(2**22 + 5)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 128 + signal.SIGTERM
