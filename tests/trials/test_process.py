"""Kills, stops, threads that die, steps of the clock, crowds, rivals: tables stay whole, and right at each sync."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from alfwatchd.errors import AlfwatchdError
from alfwatchd.web.client import Client
from kit.children import needs_root
from kit.fuzz_disk import Disk
from kit.program import (
    FAST,
    WAIT_SECONDS,
    fast_program,
    make_ibl_tree,
    make_small_tree,
    write_dataset,
)
from kit.trees import write
from kit.truth import assert_right, assert_whole, dates
from kit.writers import collisions, recordings

pytestmark = pytest.mark.heavy

NOTICED_SECONDS = 300.0
LONGEST_ROUND_SECONDS = 0.8
N_UNITS = 150


def processes_of(made):
    """Return the processes that a program or its workers are, by the environment they have from it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
            if f"HOME={made.home}".encode() in environment.read().split(b"\0"):
                found.append(int(pid))
    return found


# kill -9.


def make_recordings(tmp_path):
    root = make_ibl_tree(tmp_path / "root")
    return root, lambda seed: recordings(seed, root)


def make_collisions(tmp_path):
    disk = Disk(tmp_path / "root", tmp_path / "outside")
    for number in range(60):
        disk.do("write_session", number, number * 7)
    return tmp_path / "root", lambda seed: collisions(seed, tmp_path / "root", tmp_path / "outside")


def kill_running(made, flag, seconds):
    time.sleep(seconds)


def kill_starting(made, flag, seconds):
    made.kill()
    made.start(flag, wait=False)
    time.sleep(1.5 * seconds)


def kill_stopping(made, flag, seconds):
    made.process.send_signal(signal.SIGTERM)
    time.sleep(seconds / 10)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("make", [make_recordings, make_collisions])
def test_a_kill_at_any_moment_while_a_writer_runs(tmp_path, tally, scale, chance, make):
    root, writer = make(tmp_path)
    ways = [kill_running, kill_starting, kill_stopping]
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.start(flag)
        generation = assert_right(made).generation
        for _ in range(scale(1, 100)):
            with writer(chance.randrange(2**32)):
                chance.choice(ways)(made, flag, chance.uniform(0, LONGEST_ROUND_SECONDS))
                made.kill()
            assert_whole(made.out_dir)
            made.start(flag)
            now = assert_right(made).generation
            assert now >= generation, "generations go up only"
            generation = now
            tally.update(kills=1, restarts=1, comparisons=1)
        made.stop()
        made.start(flag)
        assert_right(made)
        made.stop()
    leftovers = {file.name for file in made.out_dir.iterdir()} - {
        "sessions.pqt",
        "datasets.pqt",
        ".alfwatchd.lock",
    }
    assert not leftovers


def make_units(root, n_units=N_UNITS):
    """Make enough date folders for worker processes."""
    write(root, *(f"s{number}/2020-01-01/001/alf/a.b.npy" for number in range(n_units)))
    return root


@pytest.mark.timeout(1800)
def test_a_kill_while_worker_processes_read_leaves_none_of_them(tmp_path, tally, scale, chance):
    root, n_met = make_units(tmp_path / "root", scale(1000, 3000)), 0
    with fast_program(root, tmp_path / "tables", f"{FAST}scan_workers = 3\n") as (made, flag):
        while n_met < scale(1, 20):  # the scan may be over before anybody looks
            made.start(flag, wait=False)
            made.wait(lambda: len(processes_of(made)) > 1 or made.state != "starting")
            time.sleep(chance.uniform(0, 0.2))
            n_met += len(processes_of(made)) > 1
            made.kill()
            end = time.monotonic() + 120
            while processes_of(made):
                assert time.monotonic() < end, "a worker process has outlived the daemon"
                time.sleep(0.01)
            tally.update(kills=1, restarts=1)
        made.start(flag)
        assert_right(made)
        tally["comparisons"] += 1
        made.stop()


# Stops.


@pytest.mark.timeout(600)
def test_a_process_that_is_stopped_for_a_while_goes_on(tmp_path, tally, scale, chance):
    root = make_ibl_tree(tmp_path / "root")
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.start(flag)
        for seconds in scale([1], [1, 20, 60]):
            with recordings(chance.randrange(2**32), root):
                made.process.send_signal(signal.SIGSTOP)
                asked = threading.Thread(target=made.client.__class__(made.socket, timeout=120).sync)
                asked.start()  # a client that asks meanwhile is answered afterwards
                time.sleep(seconds)
            made.process.send_signal(signal.SIGCONT)
            assert_right(made)
            asked.join(120)
            assert not asked.is_alive()
            tally.update(faults=1, comparisons=1)
        made.wait(lambda: made.state == "live")
        made.stop()


# Threads that die.

# On SIGUSR1, raises an exception in a thread, both named by a file, and says by another file that the thread was there.
BREAKER = """
import builtins, ctypes, threading
def hit(*_):
    folder = os.path.dirname(__file__)
    name, error = open(folder + "/order").read().split()
    kind = getattr(builtins, error)
    for thread in threading.enumerate():
        if thread.name == {"main": "MainThread"}.get(name, name):
            open(folder + "/done", "w").close()
            if name == "main":
                raise kind("on purpose")
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(kind))
signal.signal(signal.SIGUSR1, hit)
"""
THREADS = ("watcher", "server", "flusher", "hasher-0", "scan-workers", "main")
ERRORS = ("RuntimeError", "MemoryError", "OSError", "SystemExit")
MAIN_ERRORS = ("RuntimeError", "MemoryError", "OSError")  # SystemExit is an order


def strike(made, thread, error):
    """Raise an exception in a thread as soon as it is there."""
    fault = made.home / "fault"
    (fault / "order").write_text(f"{thread} {error}")
    (fault / "done").unlink(missing_ok=True)
    end = time.monotonic() + 120
    while not (fault / "done").exists():
        assert time.monotonic() < end, f"no thread {thread}"
        made.process.send_signal(signal.SIGUSR1)
        time.sleep(0.003)


def live_on(made, root, number):
    """Work until the daemon has noticed: return its exit code, or None if it is repaired."""
    client, struck = made.client.__class__(made.socket, timeout=5.0), time.monotonic()
    while made.process.poll() is None:
        assert time.monotonic() - struck < NOTICED_SECONDS, f"not repaired\n{made.log}"
        write(root, f"s{number}/2020-01-01/001/alf/n{time.monotonic_ns()}.b.npy")
        with suppress(AlfwatchdError, OSError):
            client.sync()
            if time.monotonic() - struck > 2.5:  # whatever notices has had its turn
                return None
        time.sleep(0.05)
    code = made.process.returncode
    made.process = None
    return code


@pytest.mark.timeout(1800)
def test_a_thread_that_dies_is_noticed_and_what_it_did_goes_on(tmp_path, tally, scale, chance):
    root = make_units(tmp_path / "root")
    settings = f"{FAST}scan_workers = 2\nhash_files = true\nhash_threads = 1\n"
    cases = [(thread, error) for thread in THREADS for error in ERRORS if thread != "main" or error in MAIN_ERRORS]
    cases = scale([("scan-workers", chance.choice(ERRORS))], cases * 3)
    with fast_program(root, tmp_path / "tables", settings) as (made, flag):
        made.break_it(BREAKER)
        for number, (thread, error) in enumerate(cases):
            if made.process is None:
                made.start(flag)
                tally["restarts"] += 1
            n_said, struck = len(made.log), threading.Event()
            asked = threading.Thread(target=ask_for_scans, args=(made, struck))
            asked.start()
            strike(made, thread, error)
            struck.set()
            code = live_on(made, root, number)
            asked.join(NOTICED_SECONDS)
            assert not asked.is_alive(), f"the scan hangs after {error} in {thread}\n{made.log}"
            if code is not None:
                assert code > 0, (thread, error, code)
                assert "alfwatchd: " in made.log or "thread ended by an error" in made.log
                assert_whole(made.out_dir)
                made.start(flag)
                tally["restarts"] += 1
            made.wait(lambda: made.client.status().hashes_pending == 0)
            assert_right(made, hash_files=True)
            if "without worker processes" in made.log[n_said:]:  # for a while
                made.stop()
            tally.update(faults=1, comparisons=1)
        if made.process is not None:
            made.stop()


def ask_for_scans(made, struck):
    """Scan again and again until an error has struck, and once more: worker processes run meanwhile."""
    while not struck.is_set():
        with suppress(AlfwatchdError, OSError):
            made.client.__class__(made.socket, timeout=NOTICED_SECONDS).rescan()


# Clocks.

# The clock that people see is off by as many seconds as a file says.
CLOCK = """
import datetime, types
real, real_ns, Real = time.time, time.time_ns, datetime.datetime
def off():
    with open(os.path.join(os.path.dirname(__file__), "off")) as file:
        return float(file.read())
class Shifted(Real):
    @classmethod
    def now(cls, tz=None):
        return Real.now(tz) + datetime.timedelta(seconds=off())
time.time = lambda: real() + off()
time.time_ns = lambda: real_ns() + int(off() * 1e9)
from alfwatchd.service import daemon
from alfwatchd.store import reader, writer
daemon.datetime = reader.datetime = Shifted
writer.datetime = types.SimpleNamespace(**{**vars(datetime), "datetime": Shifted})
"""
HOUR, AGES = 3600.0, 1.5e9
STEPS = (HOUR, -HOUR, -56 * 365.25 * 24 * HOUR, AGES, 0.0, -AGES, 10 * AGES)
MOST_AHEAD = timedelta(days=36525)
TIMES = (-(2**40), -AGES, -1.5, 0, 1, time.time() + HOUR, time.time() - HOUR, 2**33, 16_725_225_600, 2**40)


def set_clock(made, seconds):
    fault = made.home / "fault"
    (fault / "new").write_text(str(seconds))
    (fault / "new").replace(fault / "off")


@pytest.mark.timeout(1800)
def test_steps_of_the_clock_change_nothing(tmp_path, tally, scale, chance):
    root = make_small_tree(tmp_path / "root")
    steps = [chance.choice(STEPS) for _ in range(scale(2, 40))]
    with fast_program(root, tmp_path / "tables", f"{FAST}hash_files = true\nhash_threads = 1\n") as (made, flag):
        made.break_it(CLOCK)
        set_clock(made, 0)
        made.start(flag)
        date = max(dates(made.out_dir))
        for number, step in enumerate(steps):
            if number % 4 == 1:
                made.stop()
                set_clock(made, step)
                made.start(flag)
                tally["restarts"] += 1
                if datetime.fromisoformat(date) > datetime.fromtimestamp(time.time() + step) + MOST_AHEAD:
                    date = ""  # a new process takes such a date for damage
            if number % 4 == 2:
                (made.out_dir / ".ONE.lock").touch()  # left behind, of a time that means nothing now
            set_clock(made, step)
            for each in chance.sample(TIMES, 3):
                file = root / f"lab/Subjects/s1/2020-01-01/001/alf/n{chance.randrange(4)}.b.npy"
                write_dataset(file, chance.randrange(99))
                os.utime(file, (each, each))
            made.client.sync()  # fails after a time that is shorter than all steps
            made.wait(lambda: made.client.status().hashes_pending == 0)
            assert_right(made, hash_files=True)
            assert min(dates(made.out_dir)) >= date, "it has moved back"
            date = max(dates(made.out_dir))
            tally.update(faults=1, operations=3, comparisons=1)
        assert made.state == "live"
        made.stop()


# Crowds.

# Writes a file, syncs, and looks for it in the tables on disk; again and again, in some threads.
CLIENT = r"""
import os, sys, threading
from pathlib import Path
import pyarrow.parquet as pq
from alfwatchd import Client

root, tables, socket, name, n_threads, n_times = *map(Path, sys.argv[1:4]), sys.argv[4], *map(int, sys.argv[5:])
wrong = []

def work(me):
    try:
        session = root / f"{name}/2021-01-01/{me:03d}/alf"
        session.mkdir(parents=True, exist_ok=True)
        for number in range(n_times):
            file = session / f"{name}.t{me}x{number}.npy"
            file.write_bytes(bytes(number))
            Client(socket, timeout=120.0).sync()
            with (tables / "datasets.pqt").open("rb") as opened:
                listed = pq.ParquetFile(opened).read(["rel_path", "file_size"]).to_pylist()
            if {"rel_path": f"alf/{file.name}", "file_size": number} not in listed:
                wrong.append(file)
            if number % 3 == 1:
                file.unlink()
    except BaseException as error:
        wrong.append(repr(error))

threads = [threading.Thread(target=work, args=(me,)) for me in range(n_threads)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*wrong, sep="\n", file=sys.stderr, flush=True)
os._exit(bool(wrong))  # some threads of pyarrow abort a process that ends while they do
"""


@pytest.mark.timeout(1800)
def test_each_of_a_crowd_finds_what_it_wrote_before_its_sync(tmp_path, tally, scale, chance):
    root, (n_processes, n_threads, n_times) = make_ibl_tree(tmp_path / "root"), scale((2, 5, 2), (5, 10, 12))
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.start(flag)
        crowd = []
        try:
            with recordings(chance.randrange(2**32), root):
                arguments = [root, made.out_dir, made.socket]
                for number in range(n_processes):
                    numbers = [f"p{number}", str(n_threads), str(n_times)]
                    crowd.append(subprocess.Popen([sys.executable, "-c", CLIENT, *arguments, *numbers]))
                codes = [process.wait(600) for process in crowd]
        finally:
            for process in crowd:
                process.kill()
                process.wait()
        assert set(codes) == {0}
        assert_right(made)
        tally.update(requests=n_processes * n_threads * n_times, reads=n_processes * n_threads * n_times, comparisons=1)
        made.stop()


# Rivals.


def spellings(folder, home):
    """Return other ways to name a folder."""
    link = home / f"link{len(os.listdir(home))}"
    link.symlink_to(folder)
    return [str(link), f"{folder}/../{folder.name}", f"{link}/.", os.path.relpath(folder)]


@pytest.mark.timeout(600)
def test_a_second_daemon_is_refused_however_it_names_the_place(tmp_path, tally, scale, chance):
    root = make_small_tree(tmp_path / "root")
    other = make_small_tree(tmp_path / "other", subjects=["s9"])
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.start(flag)
        mark = (made.out_dir / "datasets.pqt").stat()
        own = {"--out-dir": tmp_path / "spare", "--state-dir": tmp_path / "state2", "--socket": made.home / "socket2"}
        (tmp_path / "spare").mkdir()
        rivals = [(f"--out-dir={name}", "keeps the tables") for name in spellings(made.out_dir, made.home)]
        rivals += [(f"--state-dir={name}", "keeps its state") for name in spellings(made.home / "state", made.home)]
        rivals += [(f"--socket={name}/s", "another daemon serves") for name in spellings(made.home, made.home)]
        for rival, said in chance.sample(rivals, scale(3, len(rivals))):
            flags = [f"{key}={place}" for key, place in own.items() if not rival.startswith(f"{key}=")]
            ended = made.run_bare(f"--root={other}", *flags, rival, code=75)
            assert said in ended.stderr
            assert ended.stderr.count("\n") == 1, "a message, and no more"
            tally["requests"] += 1
        assert (made.out_dir / "datasets.pqt").stat() == mark
        assert_right(made)
        assert "WARNING" not in made.log
        made.stop()


@needs_root
def test_a_second_daemon_is_refused_through_a_bind_mount(tmp_path, tally):
    root = make_small_tree(tmp_path / "root")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.start(flag)
        bind = ["unshare", "--mount", "sh", "-c", f'mount --bind "{made.out_dir}" "{elsewhere}" && exec "$@"', "sh"]
        if subprocess.run([*bind, "true"], check=False, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        made.prefix = bind
        places = [f"--root={root}", f"--state-dir={tmp_path / 'state2'}", f"--socket={made.home / 'socket2'}"]
        assert (
            f"process {made.pid} keeps the tables" in made.run_bare(f"--out-dir={elsewhere}", *places, code=75).stderr
        )
        tally["requests"] += 1
        made.stop()


def test_a_lock_that_somebody_removed_keeps_a_second_daemon_out(tmp_path, tally):
    root = make_small_tree(tmp_path / "root")
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.start(flag)
        for lock in (made.out_dir / ".alfwatchd.lock", made.home / "state/daemon.lock"):
            lock.unlink()
            tally["faults"] += 1
        made.wait(lambda: made.log.count("the lock was removed and is taken again") == 2)
        assert made.run_once(code=75)
        assert_right(made)
        made.socket.unlink()
        made.wait(lambda: f"the control socket was removed and is made again path={made.socket}" in made.log)
        assert_right(made)
        made.stop()


@pytest.mark.parametrize("kind", ["file", "lock", "folder"])
def test_a_control_socket_that_another_program_removed_is_made_again(tmp_path, tally, kind):
    root = make_small_tree(tmp_path / "root")
    with fast_program(root, tmp_path / "tables") as (made, flag):
        folder = made.home / "run"
        socket = folder / "s"
        made.socket, made.client = socket, Client(socket, timeout=WAIT_SECONDS)
        made.start(flag)
        for _ in range(2):
            before = socket.stat()
            match kind:
                case "file":
                    socket.unlink()
                case "lock":
                    socket.unlink()
                    socket.with_name("s.lock").unlink()
                case "folder":
                    shutil.rmtree(folder)
            made.wait(lambda before=before: socket.exists() and socket.stat().st_ctime_ns != before.st_ctime_ns)
            assert stat.S_IMODE(socket.stat().st_mode) == stat.S_IMODE(before.st_mode)
            made.wait(lambda: made.client.status().state == "live")
            assert made.run_bare(
                f"--root={root}", f"--out-dir={made.home}", f"--state-dir={made.home / 'other'}", f"--socket={socket}",
                code=75,
            )  # fmt: skip
            write_dataset(root / "lab/Subjects/s1/2020-01-01/001/alf/new.times.npy", 3)
            assert made.client.sync().exactness == "exact"
            tally["faults"] += 1
        made.stop()
        assert not socket.exists()


def test_what_another_program_puts_in_the_place_of_the_socket_is_left_alone(tmp_path, tally):
    root = make_small_tree(tmp_path / "root")
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.start(flag)
        made.socket.unlink()
        made.socket.write_text("precious")
        made.wait(lambda: "clients cannot find the control socket" in made.log)
        assert made.socket.read_text() == "precious"
        made.socket.unlink()
        made.wait(lambda: "the control socket was removed and is made again" in made.log)
        assert_right(made)
        made.socket.unlink()
        made.socket.write_text("precious")
        made.stop()
        assert made.socket.read_text() == "precious"
        tally["faults"] += 2


# Settings.


@pytest.mark.timeout(600)
def test_other_settings_give_the_tables_of_a_fresh_index_with_them(tmp_path, tally, scale, chance):
    root = make_small_tree(tmp_path / "root", lab="lab")
    for session in (root / "lab/Subjects/s1/2020-01-01").iterdir():
        shutil.copytree(session, root / "bare/2020-01-01" / session.name)
    pool = ["s1/", "*.times.npy", "002/", "alf/", "*spikes*", "lab/Subjects/s2/**", "!*.npy"]
    lab = chance.choice(["", "lab"])  # another one later changes no id that was given, so it makes no fresh index
    with fast_program(root, tmp_path / "tables") as (made, flag):
        (made.home / "config.toml").write_text(f"{FAST}lab = {json.dumps(lab)}\n")
        made.start(flag)
        for number in range(scale(2, 60)):
            settings = {"exclude": chance.sample(pool, chance.randrange(4)), "lab": lab}
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
            said = made.log.count("settings read again")
            (made.home / "config.toml").write_text(FAST + "".join(lines))
            if number % 3 == 1:
                made.stop()
                made.start(flag)
                tally["restarts"] += 1
            else:
                made.process.send_signal(signal.SIGHUP)
                write(
                    root,
                    f"lab/Subjects/s{number}/2020-01-01/001/alf/spikes.times.npy",
                    f"bare/2020-01-02/{number:03d}/",
                )
                made.wait(lambda said=said: made.log.count("settings read again") > said)
            assert_right(made, **settings)
            tally.update(operations=1, comparisons=1)
        made.stop()
