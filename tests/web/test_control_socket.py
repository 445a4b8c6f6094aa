"""The control socket: its file, and the clients behind it.

If one of these fails, a user can send requests who must not, two daemons serve one socket, or a file of others is lost.
"""

import contextlib
import grp
import os
import pwd
import shutil
import socket
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from alfwatchd.errors import AlfwatchdError, ConfigError, Locked
from alfwatchd.web.control_socket import ControlSocket, listen


@pytest.fixture
def path():
    folder = Path(tempfile.mkdtemp(prefix="alfwatchd-", dir="/tmp"))
    yield folder / "s"
    shutil.rmtree(folder)


def connects(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def leave_behind(path):
    """Make a socket that no process serves, as a killed daemon leaves it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(path))


def test_only_the_owner_may_connect_and_the_socket_goes_at_the_end(path):
    old_mask = os.umask(0)
    try:
        with listen(path, ""):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert connects(path)
            assert os.umask(0) == 0  # restored
    finally:
        os.umask(old_mask)
    assert not path.exists()
    with listen(path, ""):
        assert connects(path)


def test_the_folder_is_made(path):
    with listen(path / "a" / "s", ""):
        assert connects(path / "a" / "s")


def test_a_socket_that_is_not_served_is_replaced(path):
    leave_behind(path)
    assert path.is_socket()
    with listen(path, ""):
        assert connects(path)


def test_a_second_daemon_is_refused_and_the_first_goes_on(path):
    with listen(path, ""):
        with pytest.raises(Locked, match="another daemon serves this socket") as caught, listen(path, ""):
            pass
        assert str(path) in str(caught.value)
        assert connects(path)


def test_a_socket_of_another_program_is_kept(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen(0)
        for _ in range(3):  # the first connection is one that waits, and then there is room for no other
            with pytest.raises(Locked), listen(path, ""):
                pass
        assert path.is_socket()


@pytest.mark.parametrize("make", ["write_text", "mkdir", "symlink_to"])
def test_a_file_that_is_not_a_socket_is_kept(path, make):
    getattr(path, make)(*{"write_text": ["thesis"], "mkdir": [], "symlink_to": ["nowhere"]}[make])
    before = path.lstat()
    with pytest.raises(AlfwatchdError, match="is not a socket, and was left as it is"), listen(path, ""):
        pass
    assert (path.lstat().st_ino, path.lstat().st_size) == (before.st_ino, before.st_size)


def test_of_many_that_start_at_once_one_serves(path):
    for _ in range(10):
        leave_behind(path)
        ready, done, served, refused = threading.Barrier(8, timeout=120), threading.Barrier(8, timeout=120), [], []

        def start(ready=ready, done=done, served=served, refused=refused):
            ready.wait()
            with contextlib.ExitStack() as stack:
                try:
                    listening = stack.enter_context(listen(path, ""))
                    served.append(listening.fileno())
                except Locked:
                    refused.append(1)
                done.wait()
                if served:
                    assert connects(path)
                done.wait()

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(served), len(refused)) == (1, 7)
        assert not path.exists()


def test_a_group_that_is_not_there(path):
    with pytest.raises(ConfigError, match="there is no group 'no-such-group'"), listen(path, "no-such-group"):
        pass
    assert not path.exists()


def test_a_folder_that_cannot_be_made(path):
    path.parent.joinpath("file").write_text("")
    with pytest.raises(AlfwatchdError, match="cannot make the control socket"), listen(path.parent / "file" / "s", ""):
        pass


def test_a_path_that_is_too_long(path):
    path = path.with_name("x" * 108)
    with pytest.raises(AlfwatchdError, match="cannot make the control socket"), listen(path, ""):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to any group")
def test_a_group_may_connect(path):
    group = grp.getgrall()[-1]
    with listen(path, group.gr_name):
        about = path.stat()
        assert (stat.S_IMODE(about.st_mode), about.st_gid) == (0o660, group.gr_gid)


def test_a_socket_for_all_users(path):
    with listen(path, "", for_all=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_a_daemon_that_is_not_in_the_group_says_so(path):
    nobody = pwd.getpwnam("nobody")
    path.parent.chmod(0o777)
    old_groups = os.getgroups()
    os.setgroups([])
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    try:
        with pytest.raises(AlfwatchdError, match="the daemon's user must be in it"), listen(path, "root"):
            pass
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(old_groups)
    assert not path.exists()


@pytest.mark.parametrize(("mode", "is_refused"), [(0o777, True), (0o1777, False), (0o775, False), (0o703, True)])
def test_a_folder_where_all_users_can_replace_the_socket_is_refused(path, mode, is_refused):
    path.parent.chmod(mode)
    if is_refused:
        with pytest.raises(AlfwatchdError, match=rf"all users may write.*chmod o-w {path.parent}"), listen(path, ""):
            pass
    else:
        with listen(path, ""):
            assert connects(path)
    assert {each.name for each in path.parent.iterdir()} <= {"s.lock"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to any group")
def test_no_file_is_changed_through_a_link_in_the_place_of_the_socket(path):
    """Owner and mode were changed by path, after other processes could see the socket."""
    victim, group = path.parent / "victim", grp.getgrall()[-1]
    victim.write_text("precious")
    victim.chmod(0o600)
    before = victim.stat()
    is_over = threading.Event()

    def attack():
        while not is_over.is_set():
            with contextlib.suppress(OSError):
                path.unlink()
                path.symlink_to(victim)

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        for _ in range(300):
            with contextlib.suppress(AlfwatchdError), listen(path, group.gr_name):
                pass
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        is_over.set()
        attacker.join()
    after = victim.stat()
    assert (after.st_mode, after.st_gid, after.st_uid) == (before.st_mode, before.st_gid, before.st_uid)


def test_a_file_in_the_place_of_the_socket_is_kept_at_the_end(path):
    with listen(path, ""):
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"


def test_a_socket_that_was_removed_is_made_again(path):
    control = ControlSocket(path, "")
    try:
        assert control.renew() is None
        first = control.listening
        path.unlink()
        second = control.renew()
        assert second is control.listening is not first
        assert connects(path)
        first.close()
        shutil.rmtree(path.parent)
        assert control.renew() is not None
        assert connects(path)
        with pytest.raises(Locked), listen(path, ""):
            pass
    finally:
        control.close()
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)


def test_a_socket_of_another_daemon_in_the_same_place_is_kept(path):
    control = ControlSocket(path, "")
    path.unlink()
    path.with_name("s.lock").unlink()
    with listen(path, ""):
        with pytest.raises(Locked):
            control.renew()
        control.close()
        assert connects(path)
