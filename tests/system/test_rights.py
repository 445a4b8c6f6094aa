"""A real daemon, real users, permissions that an administrator sets on the tables, and flushes in between.

If one of these fails, a user of the machine reads what it must not, or the lab's own people are refused.
"""

import contextlib
import io
import itertools
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alfwatchd import Client
from alfwatchd.cli.main import main
from alfwatchd.errors import NotAllowed, TooOften
from alfwatchd.web.rights_guard import LOOK_AGAIN_SECONDS
from kit.children import in_child, needs_root
from kit.program import make_small_tree, program

pytestmark = [pytest.mark.heavy, needs_root]
ADA = 4242


@pytest.fixture
def daemon(open_folder):
    """A daemon whose root and socket all users may reach."""
    with program(make_small_tree(open_folder)) as made:
        made.home.chmod(0o755)
        made.start()
        yield made


def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def as_ada(function, uid=ADA):
    def run():
        become(uid)
        return function()

    return in_child(run)


def command(daemon, *words):
    """Run a command as another user; return its exit code and what it said."""

    def run():
        os.environ["HOME"] = "/nonexistent"
        said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main([words[0], f"--socket={daemon.socket}", *words[1:]])
        said.seek(0)
        return code, said.read()

    return as_ada(run)


def tables(daemon):
    return [daemon.out_dir / name for name in ("sessions.pqt", "datasets.pqt")]


def change(daemon, number):
    """Add a session, and wait until both tables are replaced."""
    inodes = [table.stat().st_ino for table in tables(daemon)]
    file = daemon.root / f"lab/Subjects/s1/2022-02-02/{number:03d}/alf/spikes.times.npy"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"spikes")
    daemon.client.sync()
    assert all(table.stat().st_ino != inode for table, inode in zip(tables(daemon), inodes, strict=True))


def setfacl(*words):
    done = subprocess.run(["setfacl", *words], check=False, capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip("this file system has no ACLs")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_administrator_sets_on_the_tables_counts_over_flushes(daemon):
    assert command(daemon, "status")[0] == 0
    for table in tables(daemon):
        table.chmod(0o640)
    for number in range(2):
        code, said = command(daemon, "status")
        assert code == 1
        assert "sessions.pqt is closed to this user (owner root, group root, mode 0640)" in said
        change(daemon, number)
    setfacl("-m", f"u:{ADA}:r", *tables(daemon))
    for number in range(2, 4):
        assert command(daemon, "status")[0] == 0
        change(daemon, number)
    setfacl("-x", f"u:{ADA}", tables(daemon)[1])
    code, said = command(daemon, "status")
    assert code == 1
    assert "datasets.pqt is closed to this user (owner root, group root, mode 0640, with an ACL)" in said


def test_a_refused_command_says_what_to_do_and_does_nothing(daemon):
    before = daemon.client.status()
    for words in (["rescan"], ["flush"], ["prune"]):
        code, said = command(daemon, *words)
        assert code == 1, said
        assert "the root user and the daemon's user may; no group is set (control.group): an administrator" in said
    after = daemon.client.status()
    assert (after.rescans, after.generation) == (before.rescans, before.generation)


def test_a_user_who_syncs_again_waits_for_its_turn(daemon):
    code, said = command(daemon, "sync")
    assert (code, said[:6]) == (0, "exact:"), said
    with pytest.raises(AssertionError, match="TooOften"):
        as_ada(Client(daemon.socket, timeout=0.5).sync)
    code, said = command(daemon, "sync")
    assert (code, "waiting: " in said, "\nexact: " in said) == (0, True, True), said
    assert TooOften.exit_code == 75


def test_a_follower_is_dropped_when_its_right_is_taken_away(daemon):
    """Between two events of a stream, which may be open for weeks."""
    near, far = os.pipe()
    generation = daemon.client.status().generation

    def follow():
        with Client(daemon.socket, root=daemon.root).changes(since=generation) as changes:
            return [change.path for change in take(changes, far)]

    def take(changes, told):
        with contextlib.suppress(NotAllowed):
            for change in changes:
                os.write(told, b"told\n")
                yield change

    with ThreadPoolExecutor(1) as pool, os.fdopen(near, "rb") as heard:
        following = pool.submit(as_ada, follow)
        change(daemon, 1)
        assert heard.readline() == b"told\n"
        tables(daemon)[0].chmod(0o600)
        time.sleep(LOOK_AGAIN_SECONDS)  # until then the daemon does not look again
        change(daemon, 2)
        assert [path.rpartition("/")[2] for path in following.result()] == ["001"]
    os.close(far)


def flood(path):
    """Connect without end, as the user of this process: silent, with half a request, or with one that is refused."""
    request, silent = b"GET /v1/status HTTP/1.1\r\nHost: d\r\n\r\n", []
    for size in itertools.cycle((0, 10, len(request), len(request))):
        with contextlib.suppress(OSError):
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            client.sendall(request[:size])
            if size < len(request):
                silent = [*silent[-200:], client]
            else:
                client.recv(1 << 16)
                client.close()


def test_a_user_without_rights_cannot_keep_others_from_being_answered(daemon):
    for table in tables(daemon):
        table.chmod(0o600)
    setfacl("-m", f"u:{ADA}:r", *tables(daemon))
    descriptors = f"/proc/{daemon.process.pid}/fd"
    before = len(os.listdir(descriptors))
    attackers = []
    try:
        for _ in range(4):
            if (pid := os.fork()) == 0:
                become(ADA + 1)
                flood(str(daemon.socket))
            attackers.append(pid)
        daemon.wait(lambda: len(os.listdir(descriptors)) > before + 20)
        for number in range(5):
            change(daemon, number)
            assert daemon.client.status().events_lost == 0
            assert as_ada(Client(daemon.socket, timeout=60).status).n_sessions == daemon.client.status().n_sessions
    finally:
        for pid in attackers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    daemon.wait(lambda: len(os.listdir(descriptors)) <= before)
