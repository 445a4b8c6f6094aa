"""What an administrator set on the tables stays when they are replaced: mode, group and ACL.

Without it, members of a lab could save into the tables until the next change, and readers were let in or kept out.
"""

import os
import stat
import subprocess

import pytest

from alfwatchd.access import Access
from alfwatchd.atomic import replace_file

OTHER_GROUP = 100


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sessions.pqt"
    path.write_bytes(b"old")
    path.chmod(0o644)
    return path


def rewrite(path):
    replace_file(path, lambda file: file.write(b"new"), keeps_access=True)
    assert path.read_bytes() == b"new"


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o664, 0o600, 0o640, 0o444])
def test_the_mode_stays(file, mode):
    file.chmod(mode)
    rewrite(file)
    assert mode_of(file) == mode


def test_a_new_file_has_what_the_umask_leaves(file):
    file.unlink()
    before = os.umask(0o027)
    try:
        rewrite(file)
    finally:
        os.umask(before)
    assert mode_of(file) == 0o640


def test_files_that_are_only_ours_do_not_keep_anything(file):
    file.chmod(0o666)
    replace_file(file, lambda opened: opened.write(b"new"), mode=0o600)
    assert mode_of(file) == 0o600


def test_no_other_user_can_read_the_file_while_it_is_written(file, tmp_path):
    file.chmod(0o640)
    seen = []
    replace_file(file, lambda _: seen.append(mode_of(tmp_path / ".sessions.pqt.tmp")), keeps_access=True)
    assert seen[0] & 0o007 == 0


def test_special_bits_and_links_are_not_carried_over(file, tmp_path):
    file.chmod(0o6755)
    rewrite(file)
    assert mode_of(file) == 0o755
    link = tmp_path / "datasets.pqt"
    link.symlink_to(file)
    rewrite(link)
    assert not link.is_symlink()
    assert mode_of(link) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to any group")
def test_the_group_stays(file):
    os.chown(file, -1, OTHER_GROUP)
    file.chmod(0o660)
    rewrite(file)
    assert (mode_of(file), file.stat().st_gid) == (0o660, OTHER_GROUP)


def test_a_group_that_this_user_cannot_give_lends_its_rights_to_no_other(file, monkeypatch):
    """A daemon outside the group `lab` must not let its own group write into the tables."""
    os.chmod(file, 0o664)
    access = Access.of(file)
    monkeypatch.setattr(os, "fchown", lambda *_: (_ for _ in ()).throw(PermissionError))
    fd = os.open(file, os.O_RDWR)
    try:
        os.fchmod(fd, 0o644)
        Access(access.gid + 1, access.mode, None).give(fd)
    finally:
        os.close(fd)
    assert mode_of(file) == 0o644


def set_acl(*arguments):
    try:
        done = subprocess.run(["setfacl", *map(str, arguments)], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no setfacl")
    if done.returncode:
        pytest.skip("this file system knows no ACL")


def acl_of(path):
    return subprocess.run(["getfacl", "-cn", path], capture_output=True, text=True, check=True).stdout


def test_an_acl_stays(file):
    set_acl("-m", "u:4321:rw", file)
    before = acl_of(file)
    assert "user:4321:rw" in before
    rewrite(file)
    assert acl_of(file) == before


def test_an_acl_that_the_folder_gives_stays_too(file, tmp_path):
    """An administrator may set it on the folder only, after the first tables are there."""
    set_acl("-d", "-m", "u:4321:rw", tmp_path)
    rewrite(file)
    assert "user:4321:rw" in acl_of(file)
