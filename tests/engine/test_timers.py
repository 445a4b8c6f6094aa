"""What is to be done now and then, on a stepped clock."""

from alfwatchd.engine.timers import Timers


def due_times(timers, name, interval, end):
    return [now for now in range(end) if timers.is_due(name, now, interval)]


def test_each_thing_is_due_once_an_interval():
    timers = Timers()
    assert due_times(timers, "a", 5, 17) == [5, 10, 15]


def test_things_do_not_disturb_each_other():
    timers = Timers()
    both = [(timers.is_due("a", now, 2), timers.is_due("b", now, 3)) for now in range(7)]
    assert [now for now, (a, _) in enumerate(both) if a] == [2, 4, 6]
    assert [now for now, (_, b) in enumerate(both) if b] == [3, 6]


def test_a_late_question_is_answered_once():
    timers = Timers()
    assert not timers.is_due("a", 0, 5)
    assert timers.is_due("a", 100, 5)
    assert not timers.is_due("a", 104, 5)


def test_what_is_made_due_is_due_at_once():
    timers = Timers()
    timers.make_due("a", 0)
    assert timers.is_due("a", 0, 5)
    timers.make_due("a", 2)
    assert timers.is_due("a", 2, 5)
    assert not timers.is_due("a", 6, 5)
