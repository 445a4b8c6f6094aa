"""When a target is brought up to date: no change is forgotten, and no target is asked all the time."""

import pytest

from alfwatchd.publish.schedule import PublishSchedule


def test_turns():
    turns = PublishSchedule(60.0)
    assert turns.seconds_left(0) is None
    assert turns.lag_seconds(0) is None
    turns.wake(10)
    turns.wake(12)
    assert (turns.seconds_left(13), turns.must_publish, turns.lag_seconds(13)) == (0, True, 3)
    turns.begin(13)
    assert (turns.seconds_left(14), turns.lag_seconds(14), turns.next_attempt()) == (None, 4, None)
    turns.wake(15)  # while it is under way: this one is for the next
    turns.finish(20, None)
    assert (turns.seconds_left(20), turns.lag_seconds(20), turns.next_attempt()) == (53, 5, 73)
    turns.begin(73)
    turns.finish(74, None)
    assert (turns.seconds_left(75), turns.lag_seconds(75), turns.next_attempt()) == (None, None, None)


def test_failures_are_tried_again_ever_more_seldom():
    turns = PublishSchedule(60.0)
    turns.wake(0)
    now, waits = 0.0, []
    for _ in range(6):
        turns.begin(now)
        waits.append(turns.fail(now, 1.0))
        assert turns.seconds_left(now) == waits[-1]
        assert turns.lag_seconds(now) == now
        now += waits[-1]
    assert waits == [5, 10, 20, 40, 60, 60]
    assert turns.fail(now, 0.0) == 30
    turns.begin(now)
    turns.finish(now, None)
    assert turns.n_failures == 0
    assert turns.lag_seconds(now) is None


def test_a_failure_forgets_no_change():
    turns = PublishSchedule(60.0)
    turns.wake(1)
    turns.begin(2)
    turns.wake(3)
    turns.fail(4, 1.0)
    assert turns.lag_seconds(5) == 4


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_old_is_removed_without_a_change(fails):
    turns = PublishSchedule(60.0)
    turns.wake(0)
    turns.begin(0)
    turns.finish(1, 100.0)
    assert turns.seconds_left(1) == 100
    assert not turns.must_publish
    turns.begin(101)
    if fails:
        turns.fail(102, 1.0)
        assert (turns.seconds_left(102), turns.must_publish) == (5, False)
        turns.begin(107)
    turns.finish(108, None)
    turns.wake(109)  # a removal does not put off a publication
    assert turns.seconds_left(109) == 0
