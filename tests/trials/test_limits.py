"""Limits of the kernel, and folders for the tables and the state that are full, read-only or gone."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from alfwatchd.errors import Busy, RequestFailed, TablesError
from alfwatchd.service.file_limits import LEAST
from kit.children import needs_root
from kit.mount import mount_box
from kit.program import assert_same_tables, make_small_tree, program
from kit.truth import assert_equals_fresh_index, index

pytestmark = pytest.mark.heavy

SESSION = "lab/Subjects/s1/2020-01-01/001"
FAST = "poll_interval_seconds = 0.5\nflush_interval_seconds = 0.1\nreconcile_entries_per_second = 0\n"
HEARTBEAT_SECONDS = 300.0


@pytest.fixture
def root(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "config.toml").write_text(FAST)
    return make_small_tree(tmp_path / "root")


def start(made, tmp_path, **more):
    made.start(f"--config={tmp_path / 'config.toml'}", **more)


def folders(root):
    return 1 + sum(len(names) for _, names, _ in os.walk(root))


# inotify.


def limited(name, number):
    """Return a command that runs a program in a user namespace whose limit is another one."""
    script = f'echo {number} > /proc/sys/user/{name} && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespace with limits of its own can be made here")
    return prefix


def set_limit(made, name, number):
    script = f"echo {number} > /proc/sys/user/{name}"
    subprocess.run(["nsenter", "--user", f"--target={made.pid}", "sh", "-c", script], check=True)


@pytest.mark.parametrize(
    ("n_watches", "is_enough"),
    [
        pytest.param(lambda n: 0, False, id="none", marks=pytest.mark.long),  # half a minute
        pytest.param(lambda n: 10, False, id="some", marks=pytest.mark.long),
        pytest.param(lambda n: n - 1, False, id="one too few"),
        pytest.param(lambda n: n, True, id="enough"),
    ],
)
def test_too_few_watches(tmp_path, root, tally, n_watches, is_enough):
    n = folders(root) + 2  # of the cookies, and of the tables
    with program(root, tmp_path / "out", prefix=limited("max_inotify_watches", n_watches(n))) as made:
        start(made, tmp_path)
        for number in range(3):
            assert made.client.sync().exactness in ("exact", "scanned")
            assert_equals_fresh_index(made)
            tally["comparisons"] += 1
            status = made.client.status()
            assert status.state == ("live" if is_enough else "polled"), status
            assert [each.kind for each in status.problems] == ([] if is_enough else ["not_watched"])
            (root / SESSION / f"one.file{number}.npy").write_bytes(b"1")
            (root / SESSION / "_ibl_trials.choice.npy").unlink(missing_ok=True)
            tally["operations"] += 2
        if not is_enough:
            tally["faults"] += 1
            assert "sysctl fs.inotify.max_user_watches=" in status.problems[0].message
            set_limit(made, "max_inotify_watches", 100_000)
            made.wait(lambda: made.state == "live", HEARTBEAT_SECONDS)
            assert made.client.status().problems == []
            assert made.client.status().watches == n - 2
        made.client.sync()
        assert_equals_fresh_index(made)
        assert made.client.sync().exactness == "exact"
        made.stop()


@pytest.mark.long
def test_no_inotify_instances(tmp_path, root, tally):
    with program(root, tmp_path / "out", prefix=limited("max_inotify_instances", 0)) as made:
        start(made, tmp_path)
        assert made.client.status().state == "polled"
        assert "fs.inotify.max_user_instances" in made.client.status().problems[0].message
        (root / SESSION / "one.file.npy").write_bytes(b"1")
        assert made.client.sync().exactness == "scanned"
        assert_equals_fresh_index(made)
        set_limit(made, "max_inotify_instances", 10)
        made.wait(lambda: made.state == "live", HEARTBEAT_SECONDS)
        made.client.sync()
        assert_equals_fresh_index(made)
        assert made.client.status().problems == []
        tally.update(faults=1, comparisons=2, operations=1)
        made.stop()


# Descriptors.


def descriptors(number):
    return ["sh", "-c", f'ulimit -n {number}; exec "$@"', "sh"]


def test_too_few_descriptors(tmp_path, root):
    with program(root, tmp_path / "out", prefix=descriptors(LEAST - 1)) as made:
        start(made, tmp_path, wait=False)
        assert made.process.wait(30) == 78
        made.process = None
        assert made.log.count("\n") == 1
        assert f"the limit of open files is {LEAST - 1}, and the daemon needs {LEAST}" in made.log


def test_the_fewest_descriptors(tmp_path, root, tally, scale):
    """Clients, scans, hashing and flushes at the same time."""
    config = tmp_path / "config.toml"
    config.write_text(f"{FAST}hash_threads = 4\nscan_workers = 4\n")
    with program(root, tmp_path / "out", ["--hash-files"], descriptors(LEAST)) as made:
        start(made, tmp_path)
        assert len(os.listdir(f"/proc/{made.pid}/fd")) <= 32
        made.client.timeout = 60.0

        def work(number):
            name = root / SESSION / f"one.file{number}.npy"
            name.write_bytes(b"1" * number)
            try:
                (made.client.rescan if number % 10 == 0 else made.client.sync)()
            except (Busy, RequestFailed):  # more clients than there may be: told, or dropped
                return 0
            return 1

        with ThreadPoolExecutor(100) as pool:
            n_requests = scale(100, 5000)
            n_answered = sum(pool.map(work, range(n_requests)))
        assert n_answered > n_requests / 20
        tally.update(requests=n_requests, operations=n_requests)
        made.wait(lambda: made.client.sync() and not made.client.status().hashes_pending)
        made.client.sync()
        assert_equals_fresh_index(made, hash_files=True)
        assert made.client.status().problems == []
        assert "Too many open files" not in made.log
        made.stop()


# Full, read-only, gone.


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))


def empty(folder):
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


@needs_root
@pytest.mark.timeout(900)
def test_no_room_for_tables_or_state(tmp_path, root, tally, scale):
    """Whatever happens to the two folders, nothing is lost, and all is right soon after it is mended."""
    (tmp_path / "box").mkdir()
    with (
        mount_box(tmp_path / "box") as box,
        program(root, tmp_path / "out", ["--hash-files"], box.prefix) as made,
    ):
        out, state = made.out_dir, made.home / "state"
        state.mkdir()
        for place in (out, state):
            box.mount_tmpfs(place, "size=2m")
        start(made, tmp_path)
        seen = tmp_path / "seen"
        n_files = 0

        def change():
            nonlocal n_files
            n_files += 1
            (root / SESSION / f"one.file{n_files}.npy").write_bytes(b"1")
            tally["operations"] += 1

        def go_on(*, is_saved):
            """Change something; whether it is saved is told rightly, and there are whole tables."""
            change()
            tally["faults"] += 1
            if is_saved:
                made.client.sync()
            else:
                with pytest.raises(TablesError):
                    made.client.sync()
            status = made.client.status()
            assert (status.saved, status.n_datasets) == (is_saved, 12 + n_files)
            if box.path(out).joinpath("sessions.pqt").exists():
                shutil.copytree(box.path(out), seen, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "filler"))
                assert_same_tables(seen, seen)

        def settle():
            """What was not saved is, without anybody's asking."""
            made.wait(lambda: made.client.status().saved)
            made.wait(lambda: made.client.status().oldest_unflushed_seconds is None)
            made.wait(lambda: made.client.status().hashes_pending == 0)
            made.client.sync()
            fresh = tmp_path / f"fresh{tally['comparisons']}"
            fresh.mkdir()
            index(root, fresh, hash_files=True)
            assert_same_tables(box.path(out), fresh)
            tally["comparisons"] += 1
            assert made.client.status().problems == []

        def restart():
            made.kill()
            start(made, tmp_path)
            tally.update(kills=1, restarts=1)

        for place in scale([out], [out, state] * 4):
            inside, is_state = box.path(place), place == state
            fill(inside)
            go_on(is_saved=is_state)
            (inside / "filler").unlink()
            settle()
            box.make_read_only(place)
            go_on(is_saved=is_state)
            box.unmount(place)
            settle()
            empty(inside)
            go_on(is_saved=True)
            restart()
            settle()
        box.unmount(out)
        out.rmdir()
        go_on(is_saved=False)
        out.mkdir()
        settle()
        box.unmount(state)
        shutil.rmtree(state)
        go_on(is_saved=True)
        restart()
        settle()
        made.stop()


# Sizes.


def test_a_deep_tree(tmp_path, root, tally, scale):
    """Deeper than there are descriptors, and longer than the kernel takes a path."""
    with program(root, tmp_path / "out", prefix=descriptors(LEAST)) as made:
        start(made, tmp_path)
        depth = scale(60, 1200)
        for collection, name in (("alf", "d"), ("deep", "long_name")):
            fd = os.open(root / SESSION, os.O_RDONLY)
            for number in range(depth):
                step = collection if number == 0 else name
                with suppress(FileExistsError):
                    os.mkdir(step, dir_fd=fd)
                fd, above = os.open(step, os.O_RDONLY, dir_fd=fd), fd
                os.close(above)
                if number % 50 == 1:
                    os.close(os.open("a.b.npy", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
                tally["operations"] += 1
            os.close(fd)
        is_too_long = depth * len("long_name/") > 4096
        for _ in range(2):
            assert made.client.sync().exactness == ("partial" if is_too_long else "exact")
            assert made.client.status().n_problems == is_too_long
            assert_equals_fresh_index(made)
            tally["comparisons"] += 1
            made.kill()
            start(made, tmp_path)
            tally.update(kills=1, restarts=1)
        shutil.move(root / SESSION, root / "away")
        made.client.sync()
        assert_equals_fresh_index(made)
        assert made.client.status().problems == []
        subprocess.run(["rm", "-rf", root / "away"], check=True)
        made.stop()


@pytest.mark.long
def test_a_folder_with_100_000_entries(tmp_path, root, tally):
    with program(root, tmp_path / "out") as made:
        start(made, tmp_path)
        folder = root / SESSION / "alf"
        for change in (
            lambda n: (folder / f"f{n}.b.npy").touch(),
            lambda n: (folder / f"f{n}.b.npy").rename(folder / f"g{n}.b.npy"),
            lambda n: (folder / f"g{n}.b.npy").unlink(),
        ):
            for number in range(100_000):
                change(number)
            tally["operations"] += 100_000
            made.assert_equals_fresh_index()
            tally["comparisons"] += 1
        made.stop()
