"""When to flush, as stories of what happens at which second.

If one of these fails, the tables are written too often, too late, or not again after a failure.
"""

import pytest

from alfwatchd.engine.schedule import FlushSchedule, Timers

INTERVAL = 10.0


def schedule(generation=5, *, written=True):
    """Return a schedule at this generation; by default as after a first flush of this process, at time 0."""
    new = FlushSchedule(generation, INTERVAL)
    if written:
        new.begin(generation, 0.0)
        new.succeed(generation, 0.5, 0.0)
    return new


# What is done to the schedule ...


def change(generation, now):
    return lambda flushes: flushes.note(generation, now)


def begin(generation, now):
    return lambda flushes: flushes.begin(generation, now)


def succeed(generation, now):
    return lambda flushes: flushes.succeed(generation, 0.5, now)


def fail(now):
    return lambda flushes: flushes.fail("disk full", now)


def force():
    return lambda flushes: setattr(flushes, "is_forced", True)


# ... and what must hold afterwards. `None` is "nothing to write".


def due(generation, expected, *, awaited=False):
    def check(flushes):
        assert flushes.due(generation, awaited=awaited) == expected
        assert flushes.is_wanted(generation) is (expected is not None)

    return check


def hurried(generation, expected):
    return due(generation, expected, awaited=True)


def reached(generation, expected):
    def check(flushes):
        assert flushes.has_reached(generation) is expected

    return check


def since(expected):
    def check(flushes):
        assert flushes.changed_since == expected

    return check


CASES = [
    ("nothing changed", [change(5, 3.0), due(5, None), hurried(5, None), since(None), reached(5, True)]),
    (
        "a change waits for the interval since the last flush began",
        [change(6, 3.0), due(6, 10.0), since(3.0), reached(5, True), reached(6, False)],
    ),
    ("after a quiet time it is due at once", [change(6, 99.0), due(6, 10.0)]),
    ("a request waits: at once", [change(6, 3.0), hurried(6, 0.0)]),
    (
        "one flush at a time",
        [change(6, 3.0), begin(6, 20.0), due(6, None), due(7, None), hurried(7, None), reached(6, False)],
    ),
    (
        "the interval counts from the begin, not from the end",
        [begin(6, 20.0), succeed(6, 25.0), due(6, None), reached(6, True), due(7, 30.0)],
    ),
    (
        "a slow flush leaves no rest when it took longer than the interval",
        [begin(6, 20.0), change(7, 21.0), succeed(6, 45.0), due(7, 30.0)],
    ),
    (
        "what changes during a flush is not on disk after it",
        [change(6, 3.0), begin(6, 20.0), change(7, 21.0), succeed(6, 25.0), reached(6, True), reached(7, False)],
    ),
    # How old is what is not on disk?
    ("the first change counts", [change(6, 3.0), change(7, 4.0), since(3.0)]),
    ("also while it is being written", [change(6, 3.0), begin(6, 20.0), since(3.0)]),
    ("until it is on disk", [change(6, 3.0), begin(6, 20.0), succeed(6, 25.0), since(None)]),
    (
        "then the first change after the begin",
        [change(6, 3.0), begin(6, 20.0), change(6, 20.5), change(7, 21.0), change(8, 22.0), succeed(6, 25.0),
         since(21.0)],
    ),
    (
        "and a failure makes nothing younger",
        [change(6, 3.0), begin(6, 20.0), change(7, 21.0), fail(25.0), begin(7, 26.0), fail(27.0), since(3.0)],
    ),
    (
        "nor does a success after it forget what came during it",
        [change(6, 3.0), begin(6, 20.0), fail(25.0), begin(6, 26.0), change(7, 26.5), succeed(6, 27.0), since(26.5)],
    ),
    # Failures.
    (
        "a failed flush is tried again",
        [begin(6, 20.0), fail(25.0), due(6, 26.0), hurried(6, 26.0), reached(6, False)],
    ),
    (
        "the second attempt waits longer, except for a request that waits",
        [begin(6, 20.0), fail(25.0), begin(6, 26.0), fail(27.0), due(6, 29.0), hurried(6, 28.0)],
    ),
    (
        "after a success all is as before",
        [begin(6, 20.0), fail(25.0), begin(6, 26.0), succeed(6, 27.0), due(6, None), hurried(7, 0.0), due(7, 36.0)],
    ),
    (
        "and the waits between attempts are short again",
        [begin(6, 20.0), fail(25.0), begin(6, 26.0), succeed(6, 27.0), begin(7, 40.0), fail(41.0), due(7, 42.0)],
    ),
    (
        "what failed is written though nothing changed since",
        [begin(5, 20.0), fail(25.0), due(5, 26.0), reached(5, False), begin(5, 26.0), succeed(5, 27.0),
         reached(5, True)],
    ),
    # Forced: the file is not what was written, though the generation is.
    ("forced without a change", [force(), due(5, 10.0), hurried(5, 0.0), reached(5, False)]),
    ("a forced flush has reached nothing before it ends", [force(), begin(5, 20.0), due(5, None), reached(5, False)]),
    ("but then it has", [force(), begin(5, 20.0), succeed(5, 21.0), due(5, None), reached(5, True)]),
    (
        "forced during a flush: that one does not count",
        [begin(6, 20.0), force(), succeed(6, 25.0), due(6, 30.0), reached(6, False)],
    ),
    (
        "a forced flush that failed",
        [force(), begin(5, 20.0), fail(21.0), due(5, 22.0), reached(5, False), since(21.0)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("story", "steps"), CASES, ids=[case[0] for case in CASES])
def test_steps(story, steps):
    flushes = schedule()
    for step in steps:
        step(flushes)


FIRST = [
    ("tables of an earlier process are written again", 5, [hurried(5, 0.0), due(5, 0.0), reached(5, False)]),
    ("also where there is nothing to write", 0, [hurried(0, 0.0), due(0, 0.0), reached(0, False)]),
    ("and count from then on", 0, [begin(0, 1.0), succeed(0, 2.0), due(0, None), reached(0, True), reached(1, False)]),
    ("they are due at once", 5, [change(6, 1.0), due(6, 0.0), reached(5, False)]),
    ("not hurried after a failure", 5, [begin(6, 1.0), fail(2.0), due(6, 3.0), hurried(6, 3.0), reached(5, False)]),
]


@pytest.mark.parametrize(("story", "generation", "steps"), FIRST, ids=[case[0] for case in FIRST])
def test_first_flush_of_a_process(story, generation, steps):
    flushes = schedule(generation, written=False)
    for step in steps:
        step(flushes)


def test_attempts_back_off_to_a_minute_and_stay_there():
    flushes = schedule()
    now, waits = 100.0, []
    for _ in range(2000):
        flushes.begin(6, now)
        waits.append(flushes.fail("disk full", now))
        assert flushes.due(6, awaited=True) == now + 1.0
        now = flushes.due(6, awaited=False)
    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert set(waits[8:]) == {60.0}
    assert now == pytest.approx(100.0 + sum(waits))


def test_a_new_interval_holds_from_the_next_flush_on():
    flushes = schedule()
    flushes.interval = 3.0
    assert flushes.due(6, awaited=False) == 10.0
    flushes.begin(6, 10.0)
    flushes.succeed(6, 0.5, 11.0)
    assert flushes.due(7, awaited=False) == 13.0


def test_what_status_says_about_flushes():
    flushes = schedule(written=False)
    assert (flushes.last, flushes.last_seconds, flushes.error, flushes.submitted) == (None, None, None, None)
    flushes.begin(6, 1.0)
    assert flushes.submitted == 6
    flushes.succeed(6, 0.25, 2.0)
    assert (flushes.last, flushes.last_seconds, flushes.error, flushes.submitted) == (2.0, 0.25, None, None)
    flushes.begin(7, 3.0)
    flushes.fail("disk full", 4.0)
    assert (flushes.last, flushes.error, flushes.submitted, flushes.generation) == (2.0, "disk full", None, 6)
    flushes.begin(7, 5.0)
    flushes.succeed(7, 0.5, 6.0)
    assert (flushes.last, flushes.error, flushes.generation) == (6.0, None, 7)


# What is to be done now and then.


def due_times(timers, name, interval, end):
    return [now for now in range(end) if timers.is_due(name, now, interval)]


def test_a_timer_is_due_once_per_interval():
    timers = Timers()
    assert due_times(timers, "a", 5, 17) == [5, 10, 15]


def test_timers_are_independent():
    timers = Timers()
    both = [(timers.is_due("a", now, 2), timers.is_due("b", now, 3)) for now in range(7)]
    assert [now for now, (a, _) in enumerate(both) if a] == [2, 4, 6]
    assert [now for now, (_, b) in enumerate(both) if b] == [3, 6]


def test_a_timer_that_is_asked_late_is_due_once():
    timers = Timers()
    assert not timers.is_due("a", 0, 5)
    assert timers.is_due("a", 100, 5)
    assert not timers.is_due("a", 104, 5)


def test_a_timer_that_is_made_due_is_due_at_once():
    timers = Timers()
    timers.make_due("a", 0)
    assert timers.is_due("a", 0, 5)
    timers.make_due("a", 2)
    assert timers.is_due("a", 2, 5)
    assert not timers.is_due("a", 6, 5)
