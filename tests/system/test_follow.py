"""A lab sorts spikes: `alfwatchd follow` runs a script for each complete session, whatever is killed or lost."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from alfwatchd.cli.follow import parse_duration
from kit.children import is_alive
from kit.program import PROGRAM, WAIT_SECONDS, Program, make_small_tree, program

pytestmark = pytest.mark.heavy

NAMES = [
    f"alf/probe0{probe}/{each}.npy" for probe in (0, 1) for each in ("spikes.times", "spikes.amps", "spikes.depths")
]
REQUIRED = ["spikes.times", "spikes.amps", "spikes.depths", "trials.table", "alf/probe01/spikes.times*"]
NAMES += ["_ibl_trials.table.pqt"]
RESULT = "alf/probe00/clusters.metrics.npy"

SORT = f"""
import filecmp, json, os, pathlib, sys, time
record, session = json.load(sys.stdin), pathlib.Path(os.environ["ALFWATCHD_PATH"])
work = pathlib.Path(__file__).parent
source = work / "rig" / os.environ["ALFWATCHD_SESSION"]
assert record["path"] == os.environ["ALFWATCHD_SESSION"] and record["change"] == os.environ["ALFWATCHD_CHANGE"]
names = {NAMES!r}
is_whole = all(filecmp.cmp(session / each, source / each, shallow=False) for each in names if (session / each).exists())
is_whole = is_whole and all((session / each).exists() for each in names)
with open(work / "begun", "a") as log:
    print(os.getpid(), session.name, file=log)
while (work / "hold").exists():
    time.sleep(0.01)
(session / "{RESULT}").write_bytes(bytes(100))
with open(work / "ran", "a") as log:
    print(session.name, is_whole, file=log)
"""


class Lab:
    """A daemon, a follower and a rig from which sessions are copied."""

    def __init__(self, daemon: Program, work: Path) -> None:
        self.daemon, self.work = daemon, work
        self.follower: subprocess.Popen[bytes] | None = None
        (work / "sort.py").write_text(SORT)

    def read(self, name: str) -> list[str]:
        file = self.work / name
        return file.read_text().splitlines() if file.exists() else []

    def record(self, number: int) -> Path:
        """Record a session on the rig."""
        session = self.work / "rig" / f"lab/Subjects/mouse/2021-02-01/{number:03d}"
        for place, name in enumerate(NAMES):
            (session / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(session / name.replace(".pqt", ".npy"), np.full(20_000, number * 100.0 + place))
            if name.endswith(".pqt"):
                (session / name.replace(".pqt", ".npy")).rename(session / name)
        return session

    @contextmanager
    def copying(self, number: int) -> Iterator[subprocess.Popen[bytes]]:
        """Copy a session slowly; at the end of the block it must be whole."""
        source = self.record(number)
        target = self.daemon.root / source.relative_to(self.work / "rig")
        target.parent.mkdir(parents=True, exist_ok=True)
        with subprocess.Popen(["rsync", "-a", "--bwlimit=500", f"{source}/", f"{target}/"]) as rsync:
            self.daemon.wait(lambda: sum(1 for each in target.rglob("*.*.npy") if each.name[0] != ".") >= 2)
            yield rsync
            assert rsync.wait(WAIT_SECONDS) == 0

    def follow(self) -> None:
        having = [f"--having={each}" for each in REQUIRED]
        command = f"{sys.executable} {self.work / 'sort.py'}"
        with (self.work / "follow.log").open("ab") as log:
            self.follower = subprocess.Popen(
                [PROGRAM, "follow", f"--socket={self.daemon.socket}", f"--root={self.daemon.root}", "--log-level=debug",
                 *having, "--quiet-for=2s", f"--cursor={self.work / 'cursor'}", "--exec", command, "--json"],
                env=self.daemon.environment(), stdout=log, stderr=log,
            )  # fmt: skip
        self.daemon.wait(lambda: (self.work / "cursor").exists())

    def kill_follower(self) -> None:
        assert self.follower is not None
        self.follower.kill()
        self.follower.wait()

    def wait_for(self, lines: list[str]) -> None:
        self.daemon.wait(lambda: len(self.read("ran")) >= len(lines))
        assert self.read("ran") == lines, (self.work / "follow.log").read_text()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    root = tmp_path / "data"
    root.mkdir()
    with program(make_small_tree(root)) as daemon:
        daemon.start()
        made = Lab(daemon, tmp_path)
        made.follow()
        try:
            yield made
        finally:
            if made.follower is not None and made.follower.poll() is None:
                made.kill_follower()


def test_each_session_is_sorted_when_it_is_complete_and_once(lab: Lab) -> None:
    with lab.copying(1) as rsync:
        rsync.send_signal(signal.SIGSTOP)
        lab.daemon.kill()
        lab.kill_follower()
        lab.daemon.start()
        lab.follow()
        lab.daemon.client.sync()
        rsync.send_signal(signal.SIGCONT)
    lab.wait_for(["001 True"])

    with lab.copying(2):  # what the script has written into the first session does not make it run again
        lab.daemon.kill()
        lab.daemon.start()
    lab.wait_for(["001 True", "002 True"])

    # The journal is lost: nothing that is sorted is sorted again, and nothing that came meanwhile is missed.
    lab.daemon.stop()
    shutil.rmtree(lab.daemon.home / "state")
    with lab.copying(3):
        lab.daemon.start()
    lab.wait_for(["001 True", "002 True", "003 True"])

    # The follower is killed while the script runs: the script ends, and runs again.
    (lab.work / "hold").touch()
    with lab.copying(4):
        pass
    lab.daemon.wait(lambda: len(lab.read("begun")) == 4)
    pid = int(lab.read("begun")[-1].split()[0])
    assert is_alive(pid)
    lab.kill_follower()
    lab.daemon.wait(lambda: not is_alive(pid))
    (lab.work / "hold").unlink()
    lab.follow()
    lab.wait_for(["001 True", "002 True", "003 True", "004 True"])
    assert len(lab.read("begun")) == 5

    assert lab.follower is not None
    lab.follower.terminate()
    assert lab.follower.wait(WAIT_SECONDS) == 0
    told = json.loads((lab.work / "cursor").read_text())
    assert len(told["told"]) == 4
    assert told["pending"] == []


def test_a_session_is_told_when_it_was_quiet_long_enough(lab: Lab) -> None:
    """The script does not run while a dataset still grows, although all of them are there."""
    lab.kill_follower()
    (lab.work / "cursor").unlink()
    lab.follow()
    with lab.copying(1):
        pass
    lab.wait_for(["001 True"])
    lines = [json.loads(line) for line in lab.read("follow.log") if line.startswith("{")]
    (line,) = lines
    assert line["change"] == "complete"
    assert {each["rel_path"] for each in line["datasets"]} == {*NAMES}


def test_what_is_there_when_the_follower_begins_is_told_from_the_start_only(lab: Lab) -> None:
    words = [f"--root={lab.daemon.root}", "--having=spikes.times", "--json", "--exec=true", "--jobs=3", "--max-runs=6"]
    ended = lab.daemon.run("follow", *words, "--since=start")
    paths = sorted(json.loads(line)["path"] for line in ended.stdout.splitlines())
    assert paths == sorted(f"lab/Subjects/s{n}/2020-01-01/{number:03d}" for n in (1, 2, 3) for number in (1, 2))
    assert lab.read("ran") == []


@pytest.mark.parametrize("since", ["99999", "0000abcd.1"])
def test_a_place_that_the_journal_does_not_reach_is_an_error(lab: Lab, since: str) -> None:
    """Else the command waits, and what happened since then is never told."""
    ended = lab.daemon.run("follow", "--having=spikes.tims", f"--since={since}", code=2)
    assert "--since: the journal does not reach back to this place" in ended.stderr
    assert "note: no dataset matches 'spikes.tims'; did you mean spikes.times?" in ended.stderr


def test_a_reader_that_has_seen_enough_ends_the_follower_quietly(lab: Lab) -> None:
    command = f"{PROGRAM} follow --socket={lab.daemon.socket} --since=start | head -1"
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as pipe:
        deadline = parse_duration("10m")
        for number in range(int(deadline)):
            (lab.daemon.root / f"lab/Subjects/s1/2020-01-01/001/alf/probe{number:02d}.times.npy").write_bytes(b"x")
            lab.daemon.client.sync()
            if pipe.poll() is not None:
                break
        out, err = pipe.communicate(timeout=WAIT_SECONDS)
    assert len(out.splitlines()) == 1
    assert err == ""
