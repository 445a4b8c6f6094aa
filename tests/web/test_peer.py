"""Which process is at the other end of a connection, and with which user and groups it connected.

If one of these fails, the daemon takes a client for another user.
"""

import array
import errno
import grp
import os
import pwd
import socket
import subprocess
import sys

import pytest

from alfwatchd import linux
from alfwatchd.acl import Caller
from alfwatchd.errors import ConfigError
from alfwatchd.web.peer import UNKNOWN, Peer, find_group, find_peer, groups_of_process
from kit.children import in_child, needs_root

NOBODY = 65534


def test_peer_is_the_process_at_the_other_end():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = find_peer(ours)
    assert peer == Peer(os.getpid(), os.getuid(), os.getgid(), frozenset(os.getgroups()))
    assert str(peer) == f"user={pwd.getpwuid(os.getuid()).pw_name} uid={os.getuid()} pid={os.getpid()}"


def test_a_peer_without_a_name():
    peer = Peer(1, 4_294_967_290, 4_294_967_291)
    assert str(peer) == "user=? uid=4294967290 pid=1"
    assert peer.all_groups() == {4_294_967_291}


def test_groups_of_a_peer_are_those_of_its_process():
    """A service has some by its unit only; a shell may be older than the membership."""
    assert Peer(1, 0, 12345, frozenset({54321})).all_groups() == {12345, 54321}


def test_groups_of_a_peer_that_nobody_tells_are_those_of_its_user():
    user = pwd.getpwuid(os.getuid())
    gids = set(os.getgrouplist(user.pw_name, user.pw_gid))
    for group in grp.getgrall():
        assert (group.gr_gid in Peer(1, user.pw_uid, user.pw_gid).all_groups()) == (group.gr_gid in gids)


def test_a_group_that_is_not_there():
    assert find_group(grp.getgrgid(0).gr_name) == 0
    with pytest.raises(ConfigError, match="no-such-group"):
        find_group("no-such-group")


@needs_root
@pytest.mark.parametrize("n_groups", [0, 1, 256, 257, 5000])
def test_a_process_may_have_many_groups(n_groups):
    """Python's getsockopt takes 256; the groups of a member of more would have been unknown."""
    gids = range(100_000, 100_000 + n_groups)

    def ask():
        os.setgroups(gids)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            return find_peer(ours).groups

    assert in_child(ask) == frozenset(gids)


def test_a_sandbox_that_does_not_tell_the_groups(monkeypatch):
    def refuse(_fd):
        raise OSError(errno.ENOPROTOOPT, "not here")

    monkeypatch.setattr(linux, "peer_groups", refuse)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert find_peer(ours).groups == frozenset(os.getgroups())  # from /proc


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t4 24 1000 \n", {4, 24, 1000}),
        ("Uid:\t0\t7\t7\t7\nGid:\t0\t8\t8\t8\nGroups:\t \n", set()),
        ("Uid:\t7\t6\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t4\n", None),  # another user has got the number by now
        ("Uid:\t7\t7\t7\t7\nGid:\t8\t9\t8\t8\nGroups:\t4\n", None),
        ("Uid:\t7\nGid:\t8\n", None),
        ("", None),
    ],
)
def test_groups_of_a_process_with_another_user_do_not_count(tmp_path, status, expected):
    (tmp_path / "12").mkdir()
    (tmp_path / "12/status").write_text(status)
    assert groups_of_process(12, 7, 8, tmp_path) == expected
    assert groups_of_process(13, 7, 8, tmp_path) is None


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (Peer(1, 5, 6, frozenset({7})), Caller(5, frozenset({6, 7}))),
        (Peer(1, NOBODY, 6, frozenset({7})), Caller(None, frozenset(), is_whole=False)),
        (Peer(1, UNKNOWN, UNKNOWN, frozenset({UNKNOWN})), Caller(None, frozenset(), is_whole=False)),
        (Peer(1, 5, NOBODY, frozenset({7})), Caller(5, frozenset({7}), is_whole=False)),
        (Peer(1, 5, 6, frozenset({7, UNKNOWN})), Caller(5, frozenset({6, 7}), is_whole=False)),
    ],
)
def test_the_number_that_stands_for_many_users_owns_no_file(peer, expected):
    assert peer.caller() == expected


@needs_root
def test_the_effective_user_counts():
    """A program that is setuid acts as its owner, with files and here."""

    def ask():
        os.setgroups([])
        os.setresgid(4141, 4343, 4141)
        os.setresuid(4242, 4444, 4242)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            peer = find_peer(ours)
            return peer.uid, peer.gid

    assert in_child(ask) == (4444, 4343)


IN_A_CONTAINER = """
import os, socket
from alfwatchd.web.peer import find_peer
peer = find_peer(socket.socket(fileno=0))
print(peer.uid, peer.gid, sorted(peer.groups), peer.uid == os.getuid(), peer.caller().uid)
"""


@needs_root
def test_users_outside_of_the_container_of_the_daemon_are_unknown():
    """The kernel shows all of them as 65534, which may also be the number of the daemon's own user."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = ["unshare", "--user", sys.executable, "-c", IN_A_CONTAINER]
        done = subprocess.run(command, stdin=ours, check=False, capture_output=True, text=True)
    if "unshare failed" in done.stderr:
        pytest.skip("no user namespace can be made here")
    groups = [UNKNOWN] if os.getgroups() else []
    assert (done.stdout, done.stderr) == (f"-1 -1 {groups} False None\n", "")


@needs_root
def test_root_of_a_container_is_the_user_that_made_it():
    """Any user may become root of a user namespace."""
    connect = ["unshare", "--user", "--map-root-user"]

    def ask():
        os.setgroups([])
        os.setresgid(4343, 4343, 4343)
        os.setresuid(4444, 4444, 4444)
        if subprocess.run([*connect, "true"], check=False, capture_output=True).returncode:
            return None
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"\0alfwatchd-test-{os.getpid()}")
            listening.listen()
            code = (
                f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({listening.getsockname()!r}); s.recv(1)"
            )
            with subprocess.Popen([*connect, "/usr/bin/python3", "-c", code]), listening.accept()[0] as accepted:
                return find_peer(accepted).uid

    if (uid := in_child(ask)) is None:
        pytest.skip("no user namespace can be made here")
    assert uid == 4444


@needs_root
def test_the_process_that_connected_counts_whoever_sends_later():
    """As with an open file: a process that gets the connection has the rights of the one that made it, and no more."""

    def connect_as_somebody_else(name, channel):
        os.setgroups([4242])
        os.setresgid(4343, 4343, 4343)
        os.setresuid(4444, 4444, 4444)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
            channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))])

    name = f"\0alfwatchd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        near, far = socket.socketpair()
        with near, far:
            in_child(lambda: connect_as_somebody_else(name, far))
            _, passed, _, _ = socket.recv_fds(near, 1, 1)
        with socket.socket(fileno=passed[0]) as connection, listening.accept()[0] as accepted:
            connection.sendall(b"sent by root")
            peer = find_peer(accepted)
    assert (peer.uid, peer.gid, peer.groups) == (4444, 4343, {4242})
