"""The log says what changed: without it, a person sees numbers go up, and never which recording it was."""

import logging
import re

import pytest

from alfwatchd.engine.changes_log import ChangesLog, log_at_once, show_change
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.session_changes import MOST_NAMED, ChangedSessions, SessionChange, compare_session
from kit.engine_tree import S1, T1, write
from kit.rows import folder_rows

NAMED = "session changed path="


def lines(caplog):
    return [each for each in caplog.messages if "session" in each and "changed" in each]


def session(number, size=10):
    row = folder_rows("alf", {"a.b.npy": pack_signature(size, 0, number, False)})
    return Session(f"s{number}/2020-01-01/001", (row,))


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "alfwatchd.engine.changes_log")
    return ChangesLog()


def added(*numbers):
    """Return what a flush tells that added sessions."""
    sessions = map(session, numbers)
    return ChangedSessions.of(compare_session(each.path, None, each) for each in sessions)


def test_each_changed_session_has_a_line(log, caplog):
    one = session(1)
    changes = [
        compare_session(session(0).path, session(0), session(0, size=2_500_000)),
        compare_session(one.path, None, one),
        compare_session(one.path, one, None),
    ]
    log.tell(ChangedSessions.of(changes), 1.0)
    assert lines(caplog) == [
        f"{NAMED}s0/2020-01-01/001 added=0 changed=1 removed=0 bytes=+2.5MB kind=changed",
        f"{NAMED}s1/2020-01-01/001 added=1 changed=0 removed=0 bytes=+10B kind=added",
        f"{NAMED}s1/2020-01-01/001 added=0 changed=0 removed=1 bytes=-10B kind=removed",
    ]


def test_many_changes_do_not_fill_the_log_and_none_is_left_out_in_silence(log, caplog):
    """A copied disk changes thousands of sessions; the log must stay readable, and the sum be right."""
    log.tell(added(*range(1, 101)), 1.0)
    log.tell_rest(30.0)
    assert len(lines(caplog)) == MOST_NAMED
    log.tell_rest(61.0)
    n_left = 100 - MOST_NAMED
    assert lines(caplog)[MOST_NAMED:] == [
        f"and more sessions changed n={n_left} datasets=+{n_left} bytes=+{n_left * 10}B "
        f"most_lines_a_minute={MOST_NAMED}"
    ]
    log.tell(added(0), 62.0)
    assert lines(caplog)[-1].startswith(f"{NAMED}s0/")


def test_what_is_left_out_is_told_at_the_end(log, caplog):
    log.tell(added(*range(1, MOST_NAMED + 2)), 1.0)
    log.tell_rest(2.0, is_end=True)
    log.tell_rest(3.0, is_end=True)
    assert [each for each in lines(caplog) if each.startswith("and more")] == [
        f"and more sessions changed n=1 datasets=+1 bytes=+10B most_lines_a_minute={MOST_NAMED}"
    ]


def test_an_engine_tells_after_the_flush(make_box, caplog):
    caplog.set_level(logging.INFO, "alfwatchd.engine.changes_log")
    box = make_box(f"{S1}/alf/a.b.c")
    box.sync()
    (first,) = lines(caplog)
    assert f"path={S1} added=1" in first
    caplog.clear()
    write(box.root, f"{S1}/alf/d.e.f", f"{T1}/alf/a.b.c")
    box.sync()
    found = sorted(lines(caplog))
    assert [re.search(r"path=(\S+) added=(\d)", each).groups() for each in found] == [(S1, "1"), (T1, "1")]


def test_a_restart_tells_what_changed_while_no_daemon_ran(make_box, caplog):
    """The first scan is compared with the tables that were there, not with an empty memory."""
    box = make_box(f"{S1}/alf/a.b.c", f"{T1}/alf/a.b.c")
    box.stop()
    write(box.root, f"{S1}/alf/d.e.f")
    caplog.set_level(logging.INFO, "alfwatchd.engine.changes_log")
    box.start()
    box.sync()
    (found,) = lines(caplog)
    assert f"path={S1} added=1 changed=0 removed=0" in found


def test_a_run_tells_what_it_did_not_name(caplog):
    caplog.set_level(logging.INFO, "alfwatchd.engine.changes_log")
    log_at_once(ChangedSessions((SessionChange("s/1", columns=("id", "qc")),), 7, 5, -10))
    assert lines(caplog) == [
        f"{NAMED}s/1 added=0 changed=0 removed=0 bytes=+0B kind=changed columns=id,qc",
        f"and more sessions changed n=7 datasets=+5 bytes=-10B most_lines_a_minute={MOST_NAMED}",
    ]


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "+0B"), (999, "+999B"), (-1000, "-1.0kB"), (1_200_000_000, "+1.2GB"), (-5 * 10**15, "-5000.0TB")],
)
def test_sizes_are_one_word(n_bytes, text):
    assert show_change(n_bytes) == text
