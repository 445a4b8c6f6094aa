"""The queue of looks loses none, and a scan ends only when all of its folders have been looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.alf.grammar import Kind
from alfwatchd.index.dirty import DirtyMark
from alfwatchd.index.look_queue import LookQueue, Scan, Ticket
from alfwatchd.tree.folder import Folder


def folder(name):
    return Folder(name, Kind.TOP, None, 1)


def names(queue, *, background=True):
    """Take all tasks and return the names of their folders."""
    found = []
    while (look := queue.next_look(background=background)) is not None:
        found.append(look.folder.name)
    return found


def started(reason="scan", *, top="root", paced=False, now=0.0):
    """Return a queue with one running scan, and the scan."""
    queue = LookQueue()
    return queue, start(queue, reason, top=top, paced=paced, now=now)


ROOT = folder("root")


def start(queue, reason, *, top="root", paced=False, now=0.0):
    folder_of_top = ROOT if top == "root" else folder(top)
    path = "" if top == "root" else top
    return queue.start_scan(Scan(reason, now, paced, path), ROOT, folder_of_top)


# The order of looks.


def test_nothing_waits_at_first():
    queue = LookQueue()
    assert (queue.is_waiting, queue.is_urgent, queue.current, queue.unpaced_scans) == (False, False, None, [])
    assert (queue.next_look(background=True), queue.end_scan(0.0)) == (None, None)


def test_urgent_looks_come_before_the_scan_in_the_order_they_were_added():
    queue, _ = started()
    queue.add([(folder("a"), None), (folder("b"), None)])
    queue.add([(folder("c"), None)])
    assert (queue.is_waiting, queue.is_urgent) == (True, True)
    assert names(queue) == ["a", "b", "c", "root"]
    assert not queue.is_waiting


def test_the_scan_waits_while_it_may_not_go_on():
    queue, _ = started(paced=True)
    queue.add([(folder("a"), None)])
    assert names(queue, background=False) == ["a"]
    assert (queue.is_waiting, queue.is_urgent) == (True, False)
    assert queue.end_scan(1.0) is None
    assert names(queue) == ["root"]


def test_an_unpaced_scan_wakes_the_engine_at_once():
    queue, _ = started()
    assert queue.is_urgent
    names(queue)
    assert not queue.is_urgent


def test_a_mark_says_what_to_look_at_and_without_a_mark_it_is_all_below():
    queue, _ = started()
    mark = DirtyMark(1.0, 2.0, names={"x.y.z"})
    queue.add([(folder("a"), mark), (folder("b"), None)])
    marked, deep, of_scan = (queue.next_look(background=True) for _ in range(3))
    assert (marked.mark, marked.deep, marked.is_urgent) == (mark, False, True)
    assert (deep.mark, deep.deep, deep.is_urgent) == (None, True, True)
    assert (of_scan.mark, of_scan.deep, of_scan.is_urgent) == (None, True, False)


@pytest.mark.parametrize("is_urgent", [True, False])
def test_what_a_look_reveals_is_looked_at_depth_first_and_in_order(is_urgent):
    children = {"root": ["a", "b"], "a": ["a1", "a2"], "a1": ["a11"], "b": ["b1"]}
    queue = LookQueue()
    if is_urgent:
        queue.add([(ROOT, None), (folder("later"), None)])
    else:
        start(queue, "scan")
    found = []
    while (look := queue.next_look(background=True)) is not None:
        found.append(look.folder.name)
        assert (look.deep, look.is_urgent) == (True, is_urgent)
        queue.follow(look, [folder(name) for name in children.get(look.folder.name, [])])
    assert found == ["root", "a", "a1", "a11", "a2", "b", "b1"] + ["later"] * is_urgent


def test_what_an_urgent_look_reveals_comes_before_the_scan():
    queue, _ = started()
    queue.add([(folder("a"), DirtyMark(0.0, 0.0, listing=True))])
    look = queue.next_look(background=True)
    queue.follow(look, [folder("new")])
    new = queue.next_look(background=True)
    assert (new.folder.name, new.is_urgent, new.deep) == ("new", True, True)
    assert names(queue) == ["root"]


def test_what_the_scan_reveals_does_not_overtake_urgent_looks():
    queue, _ = started()
    look = queue.next_look(background=True)
    queue.follow(look, [folder("child")])
    queue.add([(folder("a"), None)])
    assert names(queue) == ["a", "child"]


def test_a_second_look_is_the_very_next():
    queue, _ = started()
    queue.add([(folder("a"), None)])
    queue.look_again(folder("parent"), 7.0)
    look = queue.next_look(background=True)
    assert (look.folder.name, look.mark, look.deep, look.is_urgent) == (
        "parent",
        DirtyMark(7.0, 7.0, True),
        False,
        True,
    )
    assert names(queue) == ["a", "root"]


# Tickets.


def test_a_ticket_is_done_once_all_before_it_was_looked_at():
    queue = LookQueue()
    queue.add([(folder("a"), None)])
    ticket = queue.add_ticket()
    queue.add([(folder("b"), None)])
    first = queue.next_look(background=True)
    assert (first.folder.name, ticket.done) == ("a", False)
    queue.follow(first, [folder("a1")])
    assert (queue.next_look(background=True).folder.name, ticket.done) == ("a1", False)
    assert (queue.next_look(background=True).folder.name, ticket.done) == ("b", True)


def test_a_ticket_does_not_wait_for_the_scan():
    queue, _ = started()
    ticket = queue.add_ticket()
    assert queue.next_look(background=False) is None
    assert ticket.done


def test_tickets_in_a_row_are_done_together():
    queue = LookQueue()
    tickets = [queue.add_ticket() for _ in range(3)]
    assert (queue.is_waiting, names(queue), queue.is_waiting) == (True, [], False)
    assert all(ticket.done for ticket in tickets)


def test_a_second_look_holds_up_the_tickets_behind_it():
    # The look before the ticket could not open its folder: only a listing of the parent tells whether it is there.
    queue = LookQueue()
    queue.add([(folder("a"), None)])
    ticket = queue.add_ticket()
    queue.next_look(background=True)
    queue.look_again(folder("parent"), 0.0)
    assert (queue.next_look(background=True).folder.name, ticket.done) == ("parent", False)
    assert (queue.next_look(background=True), ticket.done) == (None, True)


# Passes.


def test_a_scan_ends_when_nothing_of_it_is_left():
    queue, running = started("start", now=10.0)
    assert queue.current is running
    look = queue.next_look(background=True)
    queue.follow(look, [folder("a")])
    assert (queue.end_scan(11.0), running.done) == (None, False)
    queue.add([(folder("urgent"), None)])
    assert names(queue) == ["urgent", "a"]
    assert queue.end_scan(12.5) is running
    assert (running.done, running.seconds, queue.current, queue.end_scan(13.0)) == (True, 2.5, None, None)
    assert list(queue.scans) == [running]


def test_urgent_looks_do_not_hold_up_the_end_of_a_scan():
    queue, running = started()
    queue.next_look(background=True)
    queue.add([(folder("a"), None)])
    assert queue.end_scan(1.0) is running


def test_exactly_one_scan_follows_the_one_that_runs():
    queue, first = started("first")
    assert names(queue) == ["root"]
    second, third = start(queue, "second"), start(queue, "third")
    assert second is third
    assert second is not first
    assert (queue.current, queue.unpaced_scans) == (first, [first, second])
    assert names(queue) == []
    assert queue.end_scan(5.0) is first
    assert (queue.current, second.started, second.done, list(queue.scans)) == (second, 5.0, False, [first, second])
    assert names(queue) == ["root"]
    assert queue.end_scan(7.0) is second
    assert (second.seconds, queue.current, queue.is_waiting) == (2.0, None, False)


def test_a_request_during_the_second_scan_gets_a_third():
    queue, _ = started()
    second = start(queue, "second")
    names(queue)
    queue.end_scan(1.0)
    names(queue)
    third = start(queue, "third")
    assert third is not second
    assert queue.end_scan(2.0) is second
    assert queue.current is third


# (running, asked for; each as top and whether paced, what becomes of the running one)
@pytest.mark.parametrize(
    ("running", "new", "replaced"),
    [
        (("root", True), ("root", False), True),
        (("root", True), ("a", False), True),
        (("root", True), ("root", True), False),
        (("root", False), ("root", False), False),
        (("root", False), ("root", True), False),
    ],
)
def test_urgent_looks_do_not_wait_for_a_paced_scan(running, new, replaced):
    queue, first = started("first", top=running[0], paced=running[1])
    look = queue.next_look(background=True)
    queue.follow(look, [folder("left")])
    second = start(queue, "second", top=new[0], paced=new[1])
    assert queue.current is (second if replaced else first)
    assert names(queue) == [new[0] if replaced else "left"]
    ended = queue.end_scan(1.0)
    assert ended is (second if replaced else first)
    assert queue.current is (None if replaced else second)


@pytest.mark.parametrize("paced", [False, True])
def test_a_look_that_ended_elsewhere_is_done_again_after_one_at_the_parent(paced):
    queue, _ = started(paced=paced)
    parent = Folder("parent", Kind.TOP, None, 1)
    child = Folder("child", Kind.DATE, parent, 1)
    root_task = queue.next_look(background=True)
    queue.follow(root_task, [child, folder("next")])
    look = queue.next_look(background=True)
    assert (look.folder, queue.is_paced(look)) == (child, paced)
    queue.retry(look, 7.0)
    found = [queue.next_look(background=True) for _ in range(3)]
    assert [each.folder.name for each in found] == ["parent", "child", "next"]
    assert (found[0].is_urgent, found[0].deep, found[0].mark.listing) == (True, False, True)
    # What a scan at its own pace has to do again nobody waits for: it is urgent. One at full speed goes on with it.
    assert (found[1].is_urgent, found[1].deep, found[1].mark) == (paced, True, None)


def test_a_look_at_names_that_ended_elsewhere_is_done_again_as_a_listing():
    queue = LookQueue()
    mark = DirtyMark(1.0, 2.0, names={"x.y.z"}, rewritten={"x.y.z"})
    queue.add([(ROOT, mark)])
    queue.retry(queue.next_look(background=False), 7.0)
    again = queue.next_look(background=False)
    assert (again.folder, again.mark.listing, again.mark.rewritten) == (ROOT, True, {"x.y.z"})
    assert queue.next_look(background=False) is None


def test_it_is_caught_up_when_nothing_urgent_is_left_before_a_ticket():
    queue, _ = started()
    assert queue.is_caught_up
    queue.add([(folder("a"), None)])
    queue.add_ticket()
    assert not queue.is_caught_up
    queue.next_look(background=True)
    assert queue.is_caught_up


# (paced, top) of scans asked for while one runs -> (paced, top) of the one that follows, and where it begins
@pytest.mark.parametrize(
    ("asked", "paced", "top", "begins"),
    [
        ([("root", False)], False, "", "root"),
        ([("a", False)], False, "a", "a"),
        ([("a", False), ("b", False)], False, "", "root"),
        ([("a", False), ("root", False)], False, "", "root"),
        ([("root", False), ("a", False)], False, "", "root"),
        ([("a", False), ("b", False), ("a", False)], False, "", "root"),
        ([("root", True), ("root", False)], False, "", "root"),
        ([("root", False), ("root", True)], False, "", "root"),
        ([("root", True), ("root", True)], True, "", "root"),
        ([("root", True), ("a", False)], False, "", "root"),
    ],
)
def test_the_scan_that_follows_answers_all_requests(asked, paced, top, begins):
    queue, _ = started()
    scans = [start(queue, "asked", top=each, paced=is_paced) for each, is_paced in asked]
    assert len(set(map(id, scans))) == 1
    names(queue)
    queue.end_scan(1.0)
    assert queue.current is scans[0]
    assert (scans[0].paced, scans[0].top) == (paced, top)
    assert names(queue) == [begins]


def test_the_same_folder_asked_for_twice_is_scanned_alone():
    queue, _ = started()
    top = folder("a")
    for _ in range(2):
        following = queue.start_scan(Scan("rescan", 0.0, False, "a"), ROOT, top)
    names(queue)
    queue.end_scan(1.0)
    assert (following.top, names(queue)) == ("a", ["a"])


@pytest.mark.parametrize(
    ("running", "following", "unpaced"),
    [((), (), 0), ((True,), (), 0), ((False,), (), 1), ((False,), (True,), 1), ((True,), (True,), 0)],
)
def test_a_barrier_waits_for_scans_that_do_not_take_their_time(running, following, unpaced):
    queue = LookQueue()
    scans = [start(queue, "scan", paced=paced) for paced in (*running, *following)]
    assert queue.unpaced_scans == scans[:unpaced]


def test_only_the_last_scans_are_remembered():
    queue = LookQueue()
    for number in range(15):
        start(queue, str(number))
        names(queue)
        queue.end_scan(0.0)
    assert [each.reason for each in queue.scans] == [str(number) for number in range(5, 15)]


def test_clear_forgets_everything():
    queue, first = started()
    start(queue, "second")
    queue.add([(folder("a"), None)])
    ticket = queue.add_ticket()
    queue.clear()
    assert (queue.is_waiting, queue.current, queue.unpaced_scans, names(queue)) == (False, None, [], [])
    assert (queue.end_scan(1.0), first.done, ticket.done) == (None, False, False)
    third = start(queue, "third")
    assert (queue.current, names(queue), queue.end_scan(2.0)) == (third, ["root"], third)
    assert queue.current is None


# Whatever is asked for: a scan that is done has begun at its top after it was asked for.


@given(st.lists(st.sampled_from(["task", "end", "ask", "ask a", "ask b", "paced", "urgent", "ticket"]), max_size=40))
def test_everybody_is_served(steps):
    tops = {name: folder(name) for name in "ab"}
    queue = LookQueue()
    asked: list[tuple[Scan, Folder, int]] = []
    begun: list[tuple[Folder, int]] = []
    queued, looked, tickets = 0, [], []
    for clock, step in enumerate([*steps, *["task", "end"] * (len(steps) + 2)]):
        if step == "task":
            look = queue.next_look(background=True)
            if look is not None and look.is_urgent:
                looked.append(int(look.folder.name))
            elif look is not None:
                begun.append((look.folder, clock))
        elif step == "end":
            queue.end_scan(clock)
        elif step == "urgent":
            queue.add([(folder(str(queued)), None)])
            queued += 1
        elif step == "ticket":
            tickets.append((queue.add_ticket(), queued))
        else:
            top = tops.get(step[-1], ROOT) if step.startswith("ask ") else ROOT
            new = Scan(step, clock, step == "paced", "" if top is ROOT else top.name)
            asked.append((queue.start_scan(new, ROOT, top), top, clock))
        assert all(len(looked) >= n_before for ticket, n_before in tickets if ticket.done)
        for running, top, since in asked:
            if running.done:
                assert any(folder in (top, ROOT) and when >= since for folder, when in begun)
    assert looked == list(range(queued))
    assert all(isinstance(ticket, Ticket) and ticket.done for ticket, _ in tickets)
    assert all(running.done for running, _, _ in asked if not running.paced and running in queue.scans)
    assert not queue.is_waiting
