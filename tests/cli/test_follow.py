"""`alfwatchd follow`: what it prints, runs and refuses. `tests/system/test_follow.py` plays a lab."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

import pytest

from alfwatchd.cli.follow import parse_duration, show_record
from alfwatchd.errors import TablesError
from alfwatchd.follow import loop
from alfwatchd.follow.follower import Follower
from alfwatchd.follow.saved import pack
from alfwatchd.follow.told import make_record
from kit.control import wait
from kit.feed import feed_box
from kit.follow import RAW, complete, make_change, make_session
from kit.journal import change


@pytest.fixture
def box():
    with feed_box() as found:
        yield found


def path(number):
    return f"lab/Subjects/s/2020-01-01/{number:03d}"


def follow(run, box, *words):
    return run("follow", f"--socket={box.box.path}", f"--root={box.box.settings.root}", *words)


def stop_when(is_so, number=signal.SIGTERM):
    """Send this process a signal as soon as something is the case."""

    def send():
        wait(is_so)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.fixture
def stop_after(tmp_path):
    """A command that notes its session, and a function that stops the follower after so many runs."""
    log = tmp_path / "ran"
    command = f"{sys.executable} -c \"import os; print(os.environ['ALFWATCHD_SESSION'], file=open({str(log)!r}, 'a'))\""
    return command, lambda n: stop_when(lambda: log.exists() and len(log.read_text().splitlines()) >= n), log


def test_each_change_is_a_line(run, box):
    box.add(change(1, added=2))
    box.add(change(2, "changed", subject="other"), change(3, "removed"))
    ended = follow(run, box, "--since=start", "--exec=true", "--max-runs=3")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[1:3] for line in ended.out.splitlines()] == [
        ["added", path(1)],
        ["removed", path(3)],
        ["changed", "lab/Subjects/other/2020-01-01/002"],
    ]


def test_lines_for_programs_and_what_a_command_reads_are_the_same(run, box, tmp_path):
    box.add(change(1, added=1, names=("+a.b.npy",)))
    read = tmp_path / "read"
    ended = follow(run, box, "--since=start", "--json", "--shell", f"--exec=cat > {read}", "--max-runs=1")
    record = json.loads(ended.out)
    assert (record["change"], record["path"], record["added"], record["generation"]) == (
        "added",
        path(1),
        ["a.b.npy"],
        2,
    )
    assert json.loads(read.read_text()) == {**record, "root": str(box.box.settings.root)}


def test_only_the_lab_and_subjects_that_are_wanted(run, box):
    box.add(change(1), change(2, lab="other"), change(3, subject="t1"), change(4, subject="t2"))
    ended = follow(run, box, "--since=start", "--lab=lab", "--subject=t*", "--exec=true", "--max-runs=2")
    assert [line.rpartition("/")[2][:3] for line in ended.out.splitlines()] == ["003", "004"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_goes_on_behind_what_it_told(run, box, stop_after, tmp_path, number, code):
    command, _, log = stop_after
    box.add(change(1))
    cursor = f"--cursor={tmp_path / 'cursor'}"
    assert follow(run, box, cursor, "--since=start", f"--exec={command}", "--max-runs=1").code == 0
    box.add(change(2))
    thread = stop_when(lambda: log.read_text().splitlines() == [path(1), path(2)], number)
    ended = follow(run, box, cursor, "--since=start", f"--exec={command}")
    thread.join()
    assert (ended.code, ended.err) == (code, "")
    assert path(1) not in ended.out


def test_a_command_that_fails_is_tried_again_and_named_in_the_end(run, box, tmp_path):
    box.add(change(1))
    cursor = f"--cursor={tmp_path / 'cursor'}"
    ended = follow(run, box, cursor, "--since=start", "--shell", "--exec=exit 3", "--retry=1", "--max-runs=2")
    assert ended.code == 1
    assert ended.out.count(path(1)) == 1
    assert (
        'command failed path=lab/Subjects/s/2020-01-01/001 error="exit code 3" tries=1, tried again in 2 s' in ended.err
    )
    assert f"alfwatchd: {path(1)}: the command failed at its last attempt: exit code 3, 2 tries\n" in ended.err
    assert follow(run, box, cursor, "--exec=true", "--max-runs=1").code == 0  # after the cause is mended


def test_a_command_that_runs_when_it_is_stopped_may_end_or_is_ended_and_runs_again(run, box, tmp_path):
    box.add(change(1))
    started, cursor = tmp_path / "started", f"--cursor={tmp_path / 'cursor'}"
    for seconds, is_told_again in (("600", True), ("0.2", False)):
        started.unlink(missing_ok=True)
        thread = stop_when(started.exists)
        command = f"--exec=touch {started}; sleep {seconds}"
        grace = "0" if is_told_again else "600"
        ended = follow(run, box, cursor, "--since=start", "--shell", command, f"--grace={grace}")
        thread.join()
        assert (ended.code, ended.err) == (0, "")
        assert path(1) in ended.out
    box.add(change(2))
    ended = follow(run, box, cursor, "--exec=true", "--max-runs=1")
    assert path(1) not in ended.out


def test_two_commands_run_at_once(run, box, tmp_path):
    box.add(change(1, eid="eid-1"), change(2, eid="eid-2"))
    meet = "touch $ALFWATCHD_EID; until [ -e eid-1 ] && [ -e eid-2 ]; do sleep 0.01; done"
    command = f"--exec=cd {tmp_path}; {meet}"
    assert follow(run, box, "--since=start", "--shell", command, "--jobs=2", "--max-runs=2").code == 0


def test_what_the_feed_cannot_tell_is_a_line_and_a_run(run, box, tmp_path):
    box.add(change(1))
    read = tmp_path / "read"
    ended = follow(run, box, "--since=0", "--shell", f"--exec=echo $ALFWATCHD_CHANGE > {read}", "--max-runs=1")
    assert ended.out == "fresh     generation 2: what changed before is not known; look at all sessions\n"
    assert read.read_text() == "fresh\n"


def test_it_goes_on_behind_a_lost_journal_only_after_it_has_read_the_tables(run, box, tmp_path, monkeypatch):
    """Else what changed while the journal was lost is never told, if the follower is stopped at that moment."""
    follower = Follower(complete("ephysData.raw"), cursor="0000dead.1")
    follower.begin([], 1)
    path = tmp_path / "cursor"
    path.write_bytes(before := pack(follower, str(box.box.settings.root)))
    has_failed = threading.Event()

    def fail(*_):
        has_failed.set()
        raise TablesError("the disk is away")

    monkeypatch.setattr(loop, "open_sessions", fail)
    thread = stop_when(has_failed.is_set)
    assert follow(run, box, f"--cursor={path}", "--having=ephysData.raw").code == 0
    thread.join()
    assert path.read_bytes() == before


# What it refuses.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs=2"], "--jobs: only --exec uses this"),
        (["--shell", "--retry=1"], "--shell and --retry: only --exec uses this"),
        (["--exec="], "the command is empty"),
        (["--exec=/nonexistent"], "is no program that can be run"),
        (["--exec=true", "--jobs=0"], "'0' is less than 1"),
        (["--quiet-for=soon"], "'soon' is no time; write it as 30s, 10m or 2h"),
        (["--since=yesterday"], "'yesterday' is no place in a journal"),
        (["--having=spikes"], "'spikes' is no name of a dataset; write spikes.ATTRIBUTE"),
        (["--cursor="], "the value is empty; is a variable not set?"),
        (["--lab="], "the value is empty"),
        (["--exce=true"], "unknown flag --exce; did you mean --exec?"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_told(words, message, run):
    ended = run("follow", *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_without_a_daemon(run, tmp_path):
    ended = run("follow", f"--socket={tmp_path / 'none'}")
    assert (ended.code, ended.out) == (3, "")
    assert "no daemon answers here" in ended.err


def test_a_cursor_file_of_another_follower_is_refused(run, box, tmp_path):
    box.add(change(1))
    cursor = f"--cursor={tmp_path / 'cursor'}"
    assert follow(run, box, cursor, "--since=start", "--exec=true", "--max-runs=1").code == 0
    ended = follow(run, box, cursor, "--having=spikes.times")
    assert ended.code == 1
    assert "was written with other values of --having and complete sessions" in ended.err


# How it reads.


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("10m", 600), ("2h", 7200), ("1.5d", 129600), ("3", 3)])
def test_times(text, seconds):
    assert parse_duration(text) == seconds


def test_lines_for_people():
    at = 1_614_600_000.5
    first = "2021-03-01T12:00:00  "
    cases = {
        "added     lab/Subjects/mouse/2021-02-01/001  +2 datasets, +5 B": make_record(
            make_change(1, "added", at=at, n_added=2, bytes_after=5), None
        ),
        "changed   lab/Subjects/mouse/2021-02-01/001  ~1 -1 datasets, -5 B, columns qc": make_record(
            make_change(1, at=at, n_changed=1, n_removed=1, bytes_before=5, columns=["qc"]), None
        ),
        "removed   lab/Subjects/mouse/2021-02-01/001  to x": make_record(
            make_change(1, "removed", at=at, renamed_to="x"), None
        ),
        "complete  lab/Subjects/mouse/2021-02-01/001  1 dataset, 8 B": make_record(
            make_change(1, at=at), make_session(1, RAW).datasets
        ),
    }
    assert {first + text: text for text in cases} == {show_record(each): text for text, each in cases.items()}
