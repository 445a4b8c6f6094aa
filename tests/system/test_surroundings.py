"""Containers, chroots and sandboxes: one line and the right exit code, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from alfwatchd import make_parquet_db
from kit.program import listed, make_small_tree, walk


def daemon_ends(made, code):
    """Start a daemon that must end by itself, and return what it said."""
    return made.run_bare(*made.places, f"--socket={made.socket}", "--hash-files", code=code).stderr


FEW_THREADS = """
    import threading
    start, left = threading._start_new_thread, {n}
    def start_if_any_is_left(*arguments):
        global left
        if left == 0:
            raise RuntimeError("can't start new thread")
        left -= 1
        return start(*arguments)
    threading._start_new_thread = start_if_any_is_left
"""


@pytest.mark.parametrize("n", [*(pytest.param(each, marks=pytest.mark.heavy) for each in (0, 1)), 3])
def test_a_daemon_for_which_too_few_threads_are_left_says_so_and_ends(idle, n):
    """`TasksMax=`, `ulimit -u` and pids.max are used up by other programs. No daemon may run with half of its parts."""
    idle.break_it(FEW_THREADS.format(n=n))
    said = daemon_ends(idle, 75)
    assert "alfwatchd: no more threads can be started: raise TasksMax=" in said
    assert "Traceback" not in said
    assert not idle.socket.exists()


def test_a_run_needs_no_thread(idle):
    """Tables are written all the same, if more slowly."""
    idle.break_it(FEW_THREADS.format(n=0))
    assert "Traceback" not in idle.run_once().stderr
    assert listed(idle.root, idle.root) == walk(idle.root)


def test_without_proc_the_message_says_what_to_mount(idle):
    """A recovery shell or a chroot has none."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    idle.prefix = [*unshare, "bash", "-c", 'umount -l /proc && exec "$@"', "bash"]
    said = idle.run_once(code=78).stderr
    assert said.startswith("alfwatchd: /proc/self/fd: is not there")
    assert len(said.splitlines()) == 1


def test_a_root_that_cannot_be_written_to_ends_the_daemon_before_it_says_started(idle):
    """The user reads which user lacks the right, and which flag gives the tables another place."""
    if os.geteuid() == 0:
        idle.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
        os.chown(idle.root, 4321, -1)
    idle.root.chmod(0o555)
    try:
        said = daemon_ends(idle, 1)
    finally:
        idle.root.chmod(0o755)
    assert "daemon started" not in said
    assert f"{idle.root}: the output folder is not writable for user " in said
    assert "with --out-dir" in said


def test_jobs_that_make_the_tables_at_once_all_end_well(tmp_path):
    """Analysis jobs of an array all end with `make_parquet_db(root)`: each but the first died."""
    root = make_small_tree(tmp_path / "data")
    with ThreadPoolExecutor(4) as jobs:
        done = list(jobs.map(make_parquet_db, [root] * 4))
    assert done == [(root / "sessions.pqt", root / "datasets.pqt")] * 4
    assert listed(root, root) == walk(root)
