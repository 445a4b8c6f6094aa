"""Which row groups a snapshot changes: as few as possible, and always enough."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.core import partition
from alfwatchd.core.encode import Encoding
from alfwatchd.core.partition import plan_groups
from alfwatchd.core.rows import FolderRows, PackedFiles, Session, pack_signature
from alfwatchd.core.tables import Snapshot

ENCODING = Encoding()


def session(number, n_datasets=3):
    files = {f"a.b{each}.npy": pack_signature(each, 0, 1, False) for each in range(n_datasets)}
    rows = (FolderRows("alf", PackedFiles.pack(files)),) if files else ()
    return Session(f"s{number}/2020-01-01/001", rows)


def snapshot(*sessions):
    return Snapshot(1, {each.path: each for each in sessions})


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(partition, "ROWS_PER_GROUP", 16)


def paths(groups):
    return {group: [each.path for _, each in members] for group, members in groups.items()}


def test_everything_is_written_at_first(small_groups):
    sessions = [session(number) for number in range(40)]
    plan, groups = plan_groups(None, snapshot(*sessions), ENCODING)
    assert plan.n_bits == 3
    assert set(groups) == set(range(8))
    members = [eid for group in sorted(groups) for eid, _ in groups[group]]
    assert members == sorted(ENCODING.eids(snapshot(*sessions)).values()), "not in the order of eids over all groups"


@pytest.mark.parametrize(
    ("change", "n_groups"),
    [
        ("nothing", 0),
        ("one session has other datasets", 1),
        ("one session goes", 1),
        ("one session comes", 1),
        ("an equal session is a new value", 1),
    ],
)
def test_only_what_changed_is_written(small_groups, change, n_groups):
    before = [session(number) for number in range(40)]
    old, _ = plan_groups(None, snapshot(*before), ENCODING)
    after = {
        "nothing": before,
        "one session has other datasets": [*before[1:], session(0, 4)],
        "one session goes": before[1:],
        "one session comes": [*before, session(40)],
        "an equal session is a new value": [*before[1:], session(0)],
    }[change]
    new, groups = plan_groups(old, snapshot(*after), ENCODING)
    assert new.n_bits == old.n_bits
    assert len(groups) == n_groups
    for group, members in groups.items():
        assert {each.path for _, each in members} == {each.path for each in after if new.group_of(each.path) == group}


def test_a_group_that_lost_its_last_session_is_written_empty(small_groups):
    before = [session(number) for number in range(40)]
    old, groups = plan_groups(None, snapshot(*before), ENCODING)
    group, gone = next((group, {each.path for _, each in members}) for group, members in groups.items() if members)
    _, groups = plan_groups(old, snapshot(*(each for each in before if each.path not in gone)), ENCODING)
    assert paths(groups) == {group: []}


def test_groups_are_made_anew_when_the_table_has_outgrown_them(small_groups):
    old, _ = plan_groups(None, snapshot(*(session(number) for number in range(10))), ENCODING)
    new, groups = plan_groups(old, snapshot(*(session(number) for number in range(200))), ENCODING)
    assert new.n_bits > old.n_bits
    assert set(groups) == set(range(1 << new.n_bits))


def test_tables_without_rows_have_one_group():
    plan, groups = plan_groups(None, snapshot(session(1, 0)), ENCODING)
    assert plan.n_bits == 0
    assert paths(groups) == {0: ["s1/2020-01-01/001"]}
    _, groups = plan_groups(None, snapshot(), ENCODING)
    assert paths(groups) == {0: []}


@given(st.integers(0, 2**32))
def test_replacing_planned_groups_gives_what_writing_everything_gives(seed):
    rng = random.Random(seed)
    sessions, old, held = {}, None, {}
    for _ in range(6):
        for number in rng.sample(range(60), rng.randrange(30)):
            if rng.random() < 0.3:
                sessions.pop(number, None)
            else:
                sessions[number] = session(number, rng.randrange(400))
        now = snapshot(*sessions.values())
        new, groups = plan_groups(old, now, ENCODING)
        held = dict(groups) if old is None or new.n_bits != old.n_bits else {**held, **groups}
        old = new
        rows = [(eid, each.path) for group in sorted(held) for eid, each in held[group]]
        assert rows == sorted((eid, path) for path, eid in ENCODING.eids(now).items())
        assert all(now.sessions[each.path] is each for members in held.values() for _, each in members)
