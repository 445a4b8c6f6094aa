"""The box itself, with a service of a few lines on top of the real `alfwatchd.service.systemd`."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kit.systemd import PROGRAM, Box, install_program, program_binds, removed, systemd_box

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(60), pytest.mark.xdist_group("systemd")]

SERVICE = f"""
import signal, socket, sys, time
sys.path.insert(0, "{PROGRAM}/src")
from alfwatchd.service import systemd

asked = set()
signal.signal(signal.SIGHUP, lambda *_: asked.add("reload"))
signal.signal(signal.SIGTERM, lambda *_: asked.add("stop"))
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(60))
interval = systemd.watchdog_interval()
listeners = [socket.socket(fileno=fd) for fd in systemd.listen_fds()]
print(f"<4>journal={{systemd.journal_attached(sys.stderr)}} interval={{interval}}", file=sys.stderr, flush=True)
print([listener.getsockname() for listener in listeners], file=sys.stderr, flush=True)
systemd.ready("first")
while "stop" not in asked:
    time.sleep(interval / 5)
    systemd.watchdog()
    if "reload" in asked:
        asked.remove("reload")
        systemd.reloading(time.monotonic_ns() // 1000)
        systemd.ready("second")
systemd.stopping()
"""

UNIT = f"""
[Service]
Type=notify
ExecStart={PROGRAM}/bin/python /usr/local/lib/small.py
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=1s
Restart=on-failure
RestartSec=50ms
User=daemon
LimitCORE=0
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    with systemd_box(tmp_path_factory.mktemp("box"), program_binds()) as box:
        install_program(box)
        box.write("/usr/local/lib/small.py", SERVICE)
        box.write("/etc/systemd/system/small.service", UNIT)
        box.write("/etc/systemd/system/small.socket", "[Socket]\nListenStream=/run/small.sock\n")
        box.run("systemctl", "daemon-reload")
        yield box


@pytest.fixture
def small(box: Box):
    box.run("systemctl", "start", "small.socket", "small.service")
    yield box
    box.run("systemctl", "stop", "small.socket", "small.service")
    box.run("systemctl", "reset-failed")


def test_a_service_is_started_as_its_user_with_its_socket(small):
    assert small.show("small", "ActiveState") == "active"
    assert small.show("small", "StatusText") == "first"
    assert small.run("stat", "-c%U", f"/proc/{small.show('small', 'MainPID')}").stdout == "daemon\n"
    journal = small.journal("small")
    assert "['/run/small.sock']" in journal
    assert "\njournal=True interval=0.5\n" in journal  # the journal took <4> as the priority


def test_reload(small):
    before = small.show("small", "MainPID")
    small.run("systemctl", "reload", "small")
    small.wait(lambda: small.show("small", "StatusText") == "second")
    assert (small.show("small", "ActiveState"), small.show("small", "MainPID")) == ("active", before)


@pytest.mark.parametrize(
    ("blow", "said"),
    [
        ("KILL", "code=killed, status=9/KILL"),
        ("USR1", "Watchdog timeout (limit 1s)"),  # its loop hangs
        ("STOP", "Watchdog timeout (limit 1s)"),
    ],
)
def test_restart_after_a_kill_and_by_the_watchdog(small, blow, said):
    before, told = small.show("small", "MainPID"), small.journal("small").count(said)
    small.run("systemctl", "kill", f"--signal={blow}", "small")
    small.wait(lambda: small.show("small", "NRestarts") == "1" and small.show("small", "StatusText") == "first")
    assert small.show("small", "MainPID") != before
    small.wait(lambda: small.journal("small").count(said) == told + 1)


def test_a_failing_command_shows_what_it_said(box):
    with pytest.raises(AssertionError, match="gave 2: ls: cannot access '/nonexistent'"):
        box.run("ls", "/nonexistent")


def test_what_is_written_inside_stays_inside(box):
    box.write("/etc/alfwatchd-box-test", "here")
    assert box.run("cat", "/etc/alfwatchd-box-test").stdout == "here"
    assert not Path("/etc/alfwatchd-box-test").exists()


def _groups(owner: int) -> list[Path]:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    roots = (Path(target) for _, target, kind, *_ in mounts if kind == "cgroup2")
    return [group for root in roots for group in root.glob(f"alfwatchd-test-{owner}-*")]


def test_nothing_is_left_after_a_failure(tmp_path):
    mounts, groups = Path("/proc/self/mountinfo").read_text(), _groups(os.getpid())
    with pytest.raises(RuntimeError, match="on purpose"), systemd_box(tmp_path) as box:
        assert box.run("systemctl", "is-active", "basic.target").stdout == "active\n"
        assert len(_groups(os.getpid())) == len(groups) + 1
        raise RuntimeError("on purpose")
    assert not psutil.pid_exists(box.pid)
    assert (Path("/proc/self/mountinfo").read_text(), _groups(os.getpid())) == (mounts, groups)
    assert os.listdir(tmp_path) == []


KILLED = """
import sys, time
from pathlib import Path
from kit.systemd import systemd_box
with systemd_box(Path(sys.argv[1])) as box:
    print(box.pid, flush=True)
    time.sleep(60)
"""


def test_nothing_runs_on_after_the_test_run_was_killed(box, tmp_path):
    """It takes `box` only to be skipped where no box can be made."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as run:
        pid = int(run.stdout.readline())
        assert psutil.pid_exists(pid)
        run.kill()
    box.wait(lambda: not psutil.pid_exists(pid))
    for group in _groups(run.pid):
        box.wait(lambda group=group: removed(group))
