"""The service under a real systemd, ended in all ways while a lab writes: it comes back, and its tables are right."""

import random
import threading

import pytest

from kit.program import assert_same_tables
from kit.service import PLAIN, fresh_lab, installed_box, short_watchdog
from kit.systemd import PROGRAM

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800), pytest.mark.xdist_group("systemd")]

ROUNDS = 40


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "box").mkdir()
    with installed_box(tmp_path / "box") as installed, fresh_lab(installed.box) as made, short_watchdog(made):
        yield made


def write_until(over, root, rng):
    """Make, change, rename and remove datasets."""
    folders = sorted(root.glob("**/[12][0-9][0-9][0-9]-??-??/[0-9]*/"))
    for number in range(1_000_000):
        if over.wait(0.01):
            return
        folder, other = rng.choice(folders), rng.choice(folders)
        made = folder / f"n{rng.randrange(20)}.times.npy"
        match rng.randrange(4):
            case 0 | 1:
                made.write_bytes(b"x" * (number % 1000))
            case 2:
                made.unlink(missing_ok=True)
            case 3 if made.exists():
                made.rename(other / made.name)


def end(lab, way):
    """End the service, and wait until it is back."""
    unit, before = "alfwatchd", lab.show("MainPID")
    if way == "restart":
        lab.box.run("systemctl", "restart", unit)
    elif way == "stop":
        lab.box.run("systemctl", "stop", unit)
        assert (lab.show("Result"), lab.show("ExecMainStatus")) == ("success", "0")
        lab.box.run("systemctl", "start", unit)
    elif way == "reload":
        lab.box.run("systemctl", "reload", unit)
        lab.box.wait(lambda: lab.show("ActiveState") == "active")
        assert lab.show("MainPID") == before
        return
    else:
        lab.box.run("systemctl", "kill", f"--signal={way}", unit)
    lab.box.wait(lambda: lab.show("ActiveState") == "active" and lab.show("MainPID") not in (before, "0"), timeout=300)


def assert_right(lab):
    """Compare the tables with those of a fresh index, made in the same box."""
    lab.alfwatchd("sync")
    lab.box.run("mkdir", "/tmp/fresh")
    places = ["--root=/srv/alf", "--out-dir=/tmp/fresh", "--state-dir=/tmp/fresh/state"]
    lab.box.run(f"{PROGRAM}/bin/alfwatchd", "--once", *places)
    assert_same_tables(lab.box.path("/srv/alf"), lab.box.path("/tmp/fresh"))
    lab.box.run("rm", "-r", "/tmp/fresh")


def test_a_service_that_is_ended_again_and_again(lab, tally):
    rng = random.Random(3)
    root = lab.box.path("/srv/alf")
    lab.start(PLAIN + "flush_interval_seconds = 0.2\n")
    for number in range(ROUNDS):
        over = threading.Event()
        writer = threading.Thread(target=write_until, args=(over, root, random.Random(number)))
        writer.start()
        try:
            way = rng.choice(["KILL", "KILL", "STOP", "SEGV", "restart", "stop", "reload"])
            end(lab, way)
        finally:
            over.set()
            writer.join()
        tally["restarts"] += way != "reload"
        tally["kills"] += way in ("KILL", "STOP", "SEGV")
        assert_right(lab)
        tally["comparisons"] += 1
    assert lab.show("ActiveState") == "active"
