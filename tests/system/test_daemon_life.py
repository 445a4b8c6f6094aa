"""How the real daemon begins, tells systemd what it does, and ends, also when something in it breaks."""

import os
import select
import signal
import socket
import time
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.program import WAIT_SECONDS, Program, generations, make_small_tree, program

pytestmark = pytest.mark.heavy

SESSION = "lab/Subjects/s/2020-01-01/001"


def write(root, name, size=4):
    session = root / SESSION
    session.mkdir(parents=True, exist_ok=True)
    (session / name).write_bytes(bytes(size))


def names(folder):
    return {row["rel_path"] for row in pq.read_table(folder / "datasets.pqt").to_pylist()}


@dataclass(frozen=True, slots=True)
class Daemon:
    """A program, and the service manager's end of its notification socket."""

    program: Program
    manager: socket.socket

    def break_it(self, code):
        self.program.break_it(code)

    def ended(self):
        """Wait for its end; the exit code, negative for a signal."""
        code = self.program.process.wait(WAIT_SECONDS)
        self.program.process = None
        return code

    def told(self):
        """The next message, as variables."""
        return dict(line.split("=", 1) for line in self.manager.recv(4096).decode().splitlines())

    def told_until(self, is_it):
        """The messages up to the first for which `is_it` holds."""
        messages = [self.told()]
        while not is_it(messages[-1]):
            messages.append(self.told())
        return messages

    def nothing_more(self):
        """The messages that are there already."""
        messages = []
        while select.select([self.manager], [], [], 0)[0]:
            messages.append(self.told())
        return messages


@pytest.fixture
def daemon(tmp_path):
    root = tmp_path / "data"
    write(root, "spikes.times.npy")
    with program(root) as made, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(made.home / "notify"))
        manager.settimeout(WAIT_SECONDS)
        made.added |= {"NOTIFY_SOCKET": str(made.home / "notify"), "ALFWATCHD_FLUSH_INTERVAL_SECONDS": "0.2"}
        yield Daemon(made, manager)


# What systemd is told.


def test_ready_comes_first_and_then_what_it_does(daemon):
    daemon.program.start()
    messages = daemon.told_until(lambda message: message.get("STATUS", "").startswith("live"))
    assert messages[0].keys() == {"READY", "STATUS"}
    assert messages[0]["STATUS"].startswith("starting: 0 sessions, 0 datasets; the first scan runs")
    assert messages[-1] == {"STATUS": "live: 1 sessions, 1 datasets; every change is seen at once"}
    assert all(message.keys() == {"STATUS"} for message in messages[1:])
    daemon.program.stop()


def test_a_status_is_sent_when_it_changes_only(daemon):
    daemon.program.start()
    daemon.told_until(lambda message: "live" in message["STATUS"])
    for number in range(5):
        daemon.program.client.status()  # each wakes the loop
        write(daemon.program.root, f"spikes.amps{number}.npy")
        daemon.program.client.sync()
    daemon.program.stop()
    said = [message["STATUS"] for message in daemon.nothing_more()]
    assert said[-1] == "last flush"
    assert len(said) == len(set(said)) < 5  # once a second at most


def test_reloading_comes_before_the_settings_are_read_and_ready_after(daemon):
    made = daemon.program
    config = made.home / "config.toml"
    config.write_text("")
    made.start(f"--config={config}")
    assert "READY" in daemon.told_until(lambda message: "live" in message["STATUS"])[0]
    config.unlink()
    os.mkfifo(config)  # the daemon stands still where it reads its settings
    before = time.monotonic_ns() // 1000
    made.process.send_signal(signal.SIGHUP)
    reloading = daemon.told_until(lambda message: "RELOADING" in message)[-1]
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert reloading == {"RELOADING": "1"}
    with config.open("w") as settings:  # waits for the reader
        assert daemon.nothing_more() == []
        settings.write('exclude = ["*.npy"]')
    assert "READY" in daemon.told()
    made.wait(lambda: made.client.status().n_datasets == 0)
    made.stop()


def test_ready_ends_a_reload_of_bad_settings_too(daemon):
    made = daemon.program
    config = made.home / "config.toml"
    config.write_text("")
    made.start(f"--config={config}")
    config.write_text("no TOML")
    made.process.send_signal(signal.SIGHUP)
    daemon.told_until(lambda message: "RELOADING" in message)
    daemon.told_until(lambda message: "READY" in message)
    assert f"settings refused, the old ones stay in force error={config}:1:" in made.log
    made.stop()


def test_reload_changes_the_log_level_and_says_what_it_cannot_change(daemon):
    made = daemon.program
    config = made.home / "config.toml"
    config.write_text('log_level = "error"')
    made.start(f"--config={config}")
    assert made.log == ""
    config.write_text('log_level = "info"\nhash_files = true\ncontrol = {group = "tty"}')
    made.process.send_signal(signal.SIGHUP)
    daemon.told_until(lambda message: "RELOADING" in message)
    daemon.told_until(lambda message: "READY" in message)
    assert "setting needs a restart to change key=hash_files" in made.log
    assert "setting needs a restart to change key=control" in made.log
    assert "INFO settings read again" in made.log
    made.stop()


def test_stopping_comes_before_the_last_flush(daemon):
    made = daemon.program
    made.start("--log-level=warning")
    lock = made.root / ".ONE.lock"
    lock.touch()  # holds up the flush
    write(made.root, "spikes.amps.npy")
    made.process.send_signal(signal.SIGTERM)
    daemon.told_until(lambda message: message == {"STOPPING": "1", "STATUS": "last flush"})
    assert made.process.poll() is None
    assert names(made.root) == {"spikes.times.npy"}
    lock.unlink()
    assert daemon.ended() == 0
    assert names(made.root) == {"spikes.times.npy", "spikes.amps.npy"}
    assert daemon.nothing_more() == []


def test_the_watchdog_is_fed_while_one_folder_takes_long_and_with_nothing_to_do(daemon):
    for number in range(2048):
        write(daemon.program.root, f"spikes.field{number}.npy", 0)
    daemon.break_it(
        "from alfwatchd.scan import scanner\n"
        "pack = scanner.pack_signature\n"
        "scanner.pack_signature = lambda *about: (time.sleep(0.001), pack(*about))[1]\n"
    )
    daemon.program.added["WATCHDOG_USEC"] = "500000"
    daemon.program.start(wait=False)
    messages = daemon.told_until(lambda message: message.get("STATUS", "").startswith("live"))
    assert messages.count({"WATCHDOG": "1"}) >= 6  # all in the first round, which lists the folder
    daemon.nothing_more()
    assert daemon.told() == daemon.told() == {"WATCHDOG": "1"}
    daemon.program.stop()


# The end.


def test_a_flush_that_failed_is_tried_again_at_the_end(daemon):
    made = daemon.program
    made.out_dir = made.home / "tables"
    made.out_dir.mkdir()
    daemon.break_it("from alfwatchd.engine import schedule\nschedule._SHORTEST_RETRY = 3600.0\n")
    made.start()
    made.out_dir.rename(made.home / "elsewhere")
    write(made.root, "spikes.amps.npy")
    made.wait(lambda: not made.client.status().saved)
    (made.home / "elsewhere").rename(made.out_dir)
    made.stop()
    assert names(made.out_dir) == {"spikes.times.npy", "spikes.amps.npy"}


def test_a_last_flush_that_fails_is_an_error(daemon):
    made = daemon.program
    made.out_dir = made.home / "tables"
    made.out_dir.mkdir()
    made.start()
    made.out_dir.rename(made.home / "elsewhere")
    write(made.root, "spikes.amps.npy")
    made.process.send_signal(signal.SIGTERM)
    assert daemon.ended() == 1
    assert "alfwatchd: the tables lack the last changes" in made.log
    assert not made.socket.exists()


def test_a_second_interrupt_does_not_wait_for_the_last_flush(daemon):
    made = daemon.program
    made.start()
    (made.root / ".ONE.lock").touch()
    write(made.root, "spikes.amps.npy")
    made.process.send_signal(signal.SIGINT)
    daemon.told_until(lambda message: "STOPPING" in message)
    made.process.send_signal(signal.SIGINT)
    assert daemon.ended() == -signal.SIGINT
    assert names(made.root) == {"spikes.times.npy"}
    (made.root / ".ONE.lock").unlink()
    made.start()  # a stale socket, a stale lock file: both are free
    assert names(made.root) == {"spikes.times.npy", "spikes.amps.npy"}
    made.stop()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_before_the_loop_runs_ends_it_in_order(daemon, number):
    daemon.break_it(
        "from alfwatchd.service import startup\n"
        "prepare = startup.prepare\n"
        f"startup.prepare = lambda *arguments: os.kill(os.getpid(), signal.{number}) or prepare(*arguments)\n"
    )
    daemon.program.start(wait=False)
    assert daemon.ended() == 0
    assert "daemon stopped" in daemon.program.log
    assert not daemon.program.socket.exists()


def test_a_reload_before_the_loop_runs_is_not_lost(daemon):
    daemon.break_it(
        "from alfwatchd.service import startup\n"
        "prepare = startup.prepare\n"
        "startup.prepare = lambda *arguments: os.kill(os.getpid(), signal.SIGHUP) or prepare(*arguments)\n"
    )
    daemon.program.start()
    assert "settings read again" in daemon.program.log
    daemon.program.stop()


# What breaks.


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "from alfwatchd.index.state_db import StateDb\nStateDb.load_places = broken",
            "thread ended by an error thread=main",
        ),
        (
            "from alfwatchd.engine.engine import Engine\nEngine._look_around = broken",
            "thread ended by an error thread=main",
        ),
        ("from alfwatchd.store.writer import TableWriter\nTableWriter.write = broken", "thread=flusher"),
        ("from alfwatchd.scan.hasher import Hasher\nHasher._report = broken", "thread=hasher-0"),
        ("import uvicorn\nuvicorn.Server.on_tick = broken", "thread=server"),
    ],
    ids=["start", "loop", "flusher", "hasher", "server"],
)
def test_a_broken_invariant_ends_it_and_leaves_no_socket(daemon, fault, said):
    daemon.break_it(f"def broken(*_):\n    raise RuntimeError('on purpose')\n{fault}\n")
    daemon.program.start("--hash-files", wait=False)
    assert daemon.ended() == 1  # on which systemd restarts it
    log = daemon.program.log
    assert said in log
    assert "RuntimeError: on purpose" in log
    if "main" not in said:
        assert f"alfwatchd: the {said.removeprefix('thread=').removesuffix('-0')} thread has ended" in log
    assert not daemon.program.socket.exists()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--state-dir=/dev/null"], 1, "cannot keep state here"),
        (["--config=no_group.toml"], 78, "there is no group 'no-such-group'"),
        (["--config=missing.toml"], 78, "missing.toml: cannot read the configuration"),
        (["--out-dir=/nonexistent/tables"], 1, "/nonexistent/tables: the output folder does not exist"),
        (["--out-dir=data/tables"], 1, "data/tables: the output folder does not exist"),  # though it is in the root
    ],
)
def test_a_start_that_fails_leaves_no_socket(daemon, monkeypatch, flags, code, said):
    made = daemon.program
    monkeypatch.chdir(made.root.parent)
    (made.root.parent / "no_group.toml").write_text('control = {group = "no-such-group"}')
    made.start(*flags, wait=False)
    assert daemon.ended() == code
    assert said in made.log
    assert not made.socket.exists()


def test_tables_that_cannot_be_held_are_not_written_though_they_are_there(daemon):
    made = daemon.program
    made.run_once()
    before = (made.root / "datasets.pqt").stat().st_ino
    daemon.break_it(
        "from alfwatchd import errors\n"
        "from alfwatchd.service import locks\n"
        "def refuse(out_dir, *_, **__):\n"
        "    raise errors.OutDirError(f'{out_dir}: on purpose')\n"
        "locks.hold_out_dir = refuse\n"
    )
    made.start(wait=False)
    assert daemon.ended() == 1
    assert f"alfwatchd: {made.root}: on purpose" in made.log
    assert (made.root / "datasets.pqt").stat().st_ino == before
    assert daemon.nothing_more() == []  # so that `systemctl start` fails


def test_a_daemon_refuses_the_tables_of_another_root(daemon):
    """A second server with the output folder of the first one: its daemon would replace all rows by its own."""
    made = daemon.program
    made.run_once()
    before = (made.out_dir / "datasets.pqt").read_bytes()
    other = make_small_tree(made.root.parent / "other")
    places = [f"--root={other}", f"--out-dir={made.out_dir}", f"--state-dir={made.home / 'state2'}"]
    refused = made.run_bare(*places, f"--socket={made.home / 'other'}", code=78)
    assert f"holds the tables of another root, {made.root}, with" in refused.stderr
    assert (made.out_dir / "datasets.pqt").read_bytes() == before


def test_two_daemons_cannot_share_a_state_folder(daemon):
    made = daemon.program
    made.start()
    other = made.root.parent / "other"
    other.mkdir()
    places = [f"--root={other}", f"--state-dir={made.home / 'state'}", f"--socket={made.home / 'other'}"]
    refused = made.run_bare(*places, code=75)
    assert f"{made.home / 'state'}: process {made.pid} keeps its state here" in refused.stderr
    made.stop()


# A root that comes late.


def test_a_root_that_is_missing_at_the_start_is_offline_and_comes_back_with_what_its_tables_hold(daemon):
    made = daemon.program
    made.start()
    made.stop()
    datasets = pq.read_table(made.root / "datasets.pqt")
    qc = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), datasets["qc"].chunk(0).dictionary, ordered=True)
    place = datasets.column_names.index("qc")
    edited = datasets.set_column(place, datasets.field("qc"), qc)
    metadata = {key: value for key, value in edited.schema.metadata.items() if key != b"alfwatchd"}
    pq.write_table(edited.replace_schema_metadata(metadata), made.root / "datasets.pqt")  # as ONE or Alyx would

    away = made.root.rename(made.root.with_name("away"))
    daemon.break_it("from alfwatchd.engine import root\nroot.OFFLINE_RETRY_SECONDS = 0.2\n")
    made.start(wait=False)
    made.wait(lambda: made.state == "offline")
    assert "the root cannot be read" in made.client.status().detail
    assert made.client.status().root == str(made.root)
    write(away, "spikes.amps.npy")
    away.rename(made.root)
    made.wait(lambda: made.state == "live")
    made.client.sync()
    rows = {row["rel_path"]: row["qc"] for row in pq.read_table(made.root / "datasets.pqt").to_pylist()}
    assert rows == {"spikes.times.npy": "PASS", "spikes.amps.npy": "NOT_SET"}
    assert len(set(generations(made.root))) == 1
    assert made.run_once(code=75)  # the tables are held, though they could not be at the start
    made.stop()


def test_it_can_be_stopped_while_the_root_is_missing(daemon):
    made = daemon.program
    made.root.rename(made.root.with_name("away"))
    made.start(wait=False)
    made.wait(lambda: made.state == "offline")
    made.stop()
    assert not made.root.exists()
    assert not made.socket.exists()
