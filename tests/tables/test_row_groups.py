"""Which row groups a snapshot changes: as few as possible, and always enough."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.alf import ids
from alfwatchd.tables import row_groups
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.row_groups import digest_groups, leave_out_equal, plan_all, plan_changes
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import earlier, folder_rows

ENCODING = TableRules()


def session(number, n_datasets=3, *, lab="", folder="alf", size=0, digest=b""):
    files = {f"a.b{each}.npy": pack_signature(each + size, 0, 1, False) + digest for each in range(n_datasets)}
    rows = tuple(filter(None, [folder_rows(folder, files)]))
    return Session(f"{lab}s{number}/2020-01-01/001", rows)


def snapshot(*sessions):
    return Snapshot(1, {each.path: each for each in sessions})


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(row_groups, "ROWS_PER_GROUP", 16)


def paths(plan, group):
    return [each.path for _, each in plan.partition.sessions_of(group)]


def test_everything_is_written_at_first(small_groups):
    sessions = [session(number) for number in range(40)]
    plan = plan_all(snapshot(*sessions), ENCODING)
    assert plan.partition.n_bits == 4
    assert plan.sessions == plan.datasets == set(range(16))
    members = [eid for group in range(16) for eid, _ in plan.partition.sessions_of(group)]
    assert members == sorted(ENCODING.eids(snapshot(*sessions)).values()), "not in the order of eids over all groups"


BEFORE = [session(number) for number in range(40)]
CHANGES = {
    "nothing": (BEFORE, 0, 0),
    "one session has other datasets": ([*BEFORE[1:], session(0, 4)], 0, 1),
    "one session goes": (BEFORE[1:], 1, 1),
    "one session comes": ([*BEFORE, session(40)], 1, 1),
    "one session goes, another comes": ([*BEFORE[1:], session(40)], 2, 2),
    "an equal session is a new value": ([*BEFORE[1:], session(0)], 0, 1),
}


@pytest.mark.parametrize(("after", "n_sessions", "n_datasets"), CHANGES.values(), ids=CHANGES)
def test_only_what_changed_is_written(small_groups, after, n_sessions, n_datasets):
    old = plan_all(snapshot(*BEFORE), ENCODING).partition
    plan = plan_changes(old, snapshot(*after), ENCODING)
    assert (len(plan.sessions), len(plan.datasets)) == (n_sessions, n_datasets)
    assert plan.partition == plan_all(snapshot(*after), ENCODING, old.n_bits).partition
    assert {path for _, path in plan.added} == {each.path for each in after} - {each.path for each in BEFORE}
    assert {path for _, path in plan.gone} == {each.path for each in BEFORE} - {each.path for each in after}


def test_a_group_that_lost_its_last_session_is_written_empty(small_groups):
    before = [session(number) for number in range(40)]
    old = plan_all(snapshot(*before), ENCODING)
    group = next(group for group in old.datasets if old.partition.members[group])
    gone = set(paths(old, group))
    plan = plan_changes(old.partition, snapshot(*(each for each in before if each.path not in gone)), ENCODING)
    assert plan.sessions == plan.datasets == {group}
    assert paths(plan, group) == []


def test_groups_are_divided_again_when_the_table_has_outgrown_them(small_groups):
    old = plan_all(snapshot(*(session(number) for number in range(10))), ENCODING).partition
    many = snapshot(*(session(number) for number in range(200)))
    assert plan_changes(old, many, ENCODING) is None
    plan = plan_all(many, ENCODING, old.n_bits)
    assert plan.partition.n_bits > old.n_bits
    assert plan.datasets == set(range(1 << plan.partition.n_bits))
    few = snapshot(session(1))
    assert plan_changes(plan.partition, few, ENCODING) is None
    assert plan_all(few, ENCODING, plan.partition.n_bits).partition.n_bits == 0


def test_tables_without_rows_have_one_group():
    plan = plan_all(snapshot(session(1, 0)), ENCODING)
    assert (plan.partition.n_bits, plan.datasets, paths(plan, 0)) == (0, {0}, ["s1/2020-01-01/001"])
    plan = plan_changes(plan.partition, snapshot(), ENCODING)
    assert (plan.sessions, plan.datasets, paths(plan, 0)) == ({0}, {0}, [])


def test_a_kept_eid_that_becomes_free_goes_to_no_session_that_has_another_one(small_groups):
    # Two folders of one session of earlier tables: the table filled in a lab that only one of them has.
    eid = bytes(6) + b"\x40" + bytes(1) + b"\x80" + bytes(7)
    rules = TableRules(
        known=KnownColumns.of(earlier({"lab/s1/2020-01-01/001": EarlierSession(eid, "", "")}, {}, "lab"))
    )
    first, second = session(1, lab="lab/Subjects/"), session(1)
    others = [session(number) for number in range(2, 40)]
    both = plan_all(snapshot(first, second, *others), rules).partition
    assert both.eids[first.path] == eid
    plan = plan_changes(both, snapshot(second, *others), rules)
    assert plan.partition.eids[second.path] == both.eids[second.path] == ids.session_id("s1/2020-01-01/001")
    assert plan.partition == plan_all(snapshot(second, *others), rules, both.n_bits, both.given).partition
    assert (plan.gone, plan.added) == ({(eid, first.path)}, set())
    assert plan.sessions == plan.datasets == {both.group_of(eid)}
    again = plan_changes(plan.partition, snapshot(first, second, *others), rules)
    assert again.partition.eids[first.path] == eid


OTHERS = {
    "size": session(0, size=1),
    "name": session(0, 4),
    "folder": session(0, folder="alf/probe00"),
    "no folder": session(0, folder=""),
    "md5": session(0, digest=bytes(range(16))),
    "no datasets": session(0, 0),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_digest_tells_rows_apart(other):
    plans = [plan_all(snapshot(each, session(1)), ENCODING) for each in (session(0), other)]
    old, new = map(digest_groups, plans)
    assert old.sessions == new.sessions
    assert old.datasets != new.datasets
    assert (leave_out_equal(plans[1], old, new).sessions, leave_out_equal(plans[1], old, new).datasets) == (set(), {0})


@given(st.integers(0, 2**32))
def test_what_is_planned_step_by_step_is_what_is_planned_at_once(seed):
    """Groups that are neither planned nor hold what they held would be found here, and so would wrong digests."""
    rng = random.Random(seed)
    sessions, old, held, digests = {}, None, {}, None
    for _ in range(6):
        for number in rng.sample(range(60), rng.randrange(30)):
            if rng.random() < 0.3:
                sessions.pop(number, None)
            elif number not in sessions or rng.random() < 0.8:
                sessions[number] = session(number, rng.choice([0, 1, 40, 400]))
            else:
                sessions[number] = session(number, sessions[number].n_datasets)
        now = snapshot(*sessions.values())
        plan = plan_changes(old, now, ENCODING) if old is not None else None
        if plan is None:
            plan = plan_all(now, ENCODING, old.n_bits if old is not None else None)
            held = held if old is not None and plan.partition.n_bits == old.n_bits else {}
        new = digest_groups(plan)
        if held:
            plan, new = leave_out_equal(plan, digests, new), digests.update(new)
        old, digests = plan.partition, new
        assert digests == digest_groups(plan_all(now, ENCODING, old.n_bits))
        held |= {group: plan.partition.sessions_of(group) for group in plan.datasets}
        rows = [(eid, each) for group in sorted(held) for eid, each in held[group]]
        eids = ENCODING.eids(now)
        assert rows == [(eids[path], now.sessions[path]) for path in sorted(eids, key=eids.__getitem__)]


UNSHOWN = {
    "nothing": (0, 1, False, 0),
    "mtime": (9, 1, False, 0),
    "inode": (0, 9, False, 0),
    "change time": (0, 1, False, 9),
    "reached through a link": (0, 1, True, 0),
}


@pytest.mark.parametrize("about", UNSHOWN.values(), ids=UNSHOWN)
def test_what_no_table_shows_changes_no_row_group(about):
    """A restored disk has other inodes and times: its tables are those of before."""
    row = Session("s/2020-01-01/001", (folder_rows("alf", {"a.b.c": pack_signature(5, *about)}),))
    before = digest_groups(
        plan_all(
            snapshot(Session(row.path, (folder_rows("alf", {"a.b.c": pack_signature(5, *UNSHOWN["nothing"])}),))),
            ENCODING,
        )
    )
    plan = plan_all(snapshot(row), ENCODING)
    left = leave_out_equal(plan, before, digest_groups(plan))
    assert (left.sessions, left.datasets) == (set(), set())
