"""What the engine counts. If one of these fails, the metrics of a daemon are not those of what it does."""

import shutil
from concurrent.futures import Future

import pytest

from alfwatchd.engine import waiting
from alfwatchd.engine.inbox import Inbox
from alfwatchd.figures import Durations, FiguresRequest
from alfwatchd.tree.rows import PROBLEM_KINDS
from alfwatchd.tree.sessions import Counts
from alfwatchd.watch.events import EventsLost
from kit.engine_tree import S1, T1, write

pytestmark = pytest.mark.usefixtures("no_readers")


def ask(box):
    reply = box.ask(FiguresRequest)
    box.step()
    return reply.result(0)


def test_figures_have_the_status_of_the_same_moment(make_box):
    """An alert and the `status` that a person then looks at must not contradict each other."""
    box = make_box(f"{S1}/alf/a.b.c")
    assert ask(box).status == box.status()


def test_rows_are_counted_by_lab(make_box):
    """Sessions in no lab folder count for the lab of the settings; a lab without sessions has no figures."""
    box = make_box(f"lab/Subjects/{S1}/a.b.c", f"lab/Subjects/{S1}/d.e.f", f"{T1}/a.b.c", lab="mine")
    size = (box.root / f"{T1}/a.b.c").stat().st_size
    n_bytes = ask(box).status.n_bytes
    assert ask(box).labs == {"lab": Counts(1, 2, n_bytes - size), "mine": Counts(1, 1, size)}
    shutil.rmtree(box.root / "lab")
    box.sync()
    assert ask(box).labs == {"mine": Counts(1, 1, size)}
    write(box.root, f"mine/Subjects/{S1}/a.b.c")
    box.sync()
    assert ask(box).labs["mine"].n_sessions == 2


def test_events_and_scans_are_counted(make_box):
    box = make_box(f"{S1}/alf/a.b.c")
    before = ask(box)
    assert sum(before.scans["start"].counts) == 1
    box.live(40.0)
    assert ask(box).n_events == before.n_events  # a heartbeat is no event of the tree
    write(box.root, f"{S1}/alf/d.e.f")
    box.sync()
    assert ask(box).n_events > before.n_events
    box.inbox.post(EventsLost("overflow of the kernel's event queue"))
    box.live(20.0)
    after = ask(box)
    assert sum(after.scans["lost_events"].counts) == sum(before.scans["lost_events"].counts) + 1
    assert after.status.events_lost == before.status.events_lost + 1
    assert sum(before.scans["lost_events"].counts) == 0  # what was asked for first does not change


def test_flushes_are_counted_and_how_long_they_fail(make_box):
    box = make_box(f"{S1}/alf/a.b.c")
    before = ask(box)
    assert (before.n_failed_flushes, before.unsaved_seconds) == (0, 0.0)
    shutil.move(box.out_dir, box.home / "away")
    write(box.root, f"{S1}/alf/d.e.f")
    box.live(100.0)
    failing = ask(box)
    assert sum(failing.flushes.counts) == sum(before.flushes.counts)
    assert failing.n_failed_flushes > 1
    assert 80.0 < failing.unsaved_seconds < 100.0  # since the first failure
    shutil.move(box.home / "away", box.out_dir)
    box.live(100.0)
    after = ask(box)
    assert sum(after.flushes.counts) == sum(before.flushes.counts) + 1
    assert (after.n_failed_flushes, after.unsaved_seconds) == (failing.n_failed_flushes, 0.0)


def test_problems_are_counted_by_kind_and_every_kind_is_there(make_box):
    """An alert on a series that appears only with the problem would miss its first minutes."""
    box = make_box(f"{S1}/a.b.c", f"{S1[:-3]}1/a.b.c", f"{T1}/a.b.c", f"{T1[:-3]}1/a.b.c")
    problems = ask(box).problems
    assert problems["twin"] == 2
    assert set(problems) == set(PROBLEM_KINDS)
    assert sum(problems.values()) == box.status().n_problems


def test_before_there_is_an_engine_nothing_is_counted(make_box):
    """Prometheus must not take a daemon that reads its tables for one that is down."""
    settings, inbox = make_box(f"{S1}/a.b.c").settings(), Inbox()
    reply: Future = Future()
    inbox.post(FiguresRequest(reply))
    waiting.wait_for(lambda: reply.result(60), inbox, settings, lambda _: None)
    figures = reply.result(0)
    assert (figures.status.state, figures.n_events, figures.flushes) == ("starting", 0, Durations())
