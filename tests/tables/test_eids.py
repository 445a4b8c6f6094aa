"""Which session gets which eid: each story of sessions that come and go, and the rules over random ones."""

import random
import uuid

from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import adopt
from alfwatchd.tables.columns import sessions_table
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.eids import NO_EIDS
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.row_groups import plan_all, plan_changes
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import datasets_of, earlier, sessions_of

OLD, NEW = "old/2020-01-01/001", "new/2020-01-01/001"


def own(path, number=0):
    return [eid for eid, _ in zip(ids.session_ids(path), range(number + 1), strict=False)][number]


def text(raw):
    return str(uuid.UUID(bytes=raw))


def snapshot(*paths, generation=1):
    return Snapshot(generation, {path: Session(path) for path in paths})


def renamed_in_database(**row):
    """Return a database in which the subject `old` is called `new`; its session keeps its id."""
    return adopt(sessions_of({"id": text(own(OLD)), "subject": "new", **row}), datasets_of())


def test_the_old_path_of_a_session_that_a_database_has_renamed_gets_another_id():
    rules = TableRules().adopt(renamed_in_database())
    eids = rules.eids(snapshot(OLD, NEW))
    assert eids == {NEW: own(OLD), OLD: own(OLD, 1)}
    assert rules.eids(snapshot(OLD)) == {OLD: own(OLD)}, "nobody else has it"


def test_what_earlier_tables_know_comes_before_the_order_of_paths():
    rules = TableRules(
        known=KnownColumns.of(earlier({"z/2020-01-01/001": EarlierSession(own("a/2020-01-01/001"), "", "")}, {}))
    )
    eids = rules.eids(snapshot("a/2020-01-01/001", "z/2020-01-01/001"))
    assert eids == {"a/2020-01-01/001": own("a/2020-01-01/001", 1), "z/2020-01-01/001": own("a/2020-01-01/001")}


def test_the_database_comes_before_earlier_tables():
    rules = TableRules(known=KnownColumns.of(earlier({"z/2020-01-01/001": EarlierSession(own(OLD), "", "")}, {})))
    rules = rules.adopt(renamed_in_database())
    eids = rules.eids(snapshot("z/2020-01-01/001", NEW))
    assert eids == {NEW: own(OLD), "z/2020-01-01/001": own("z/2020-01-01/001")}


def test_a_third_session_gets_the_third_id():
    known = sessions_of({"id": text(own(OLD)), "subject": "new"}, {"id": text(own(OLD, 1)), "subject": "newer"})
    eids = TableRules().adopt(adopt(known, datasets_of())).eids(snapshot(OLD, NEW, "newer/2020-01-01/001"))
    assert eids[OLD] == own(OLD, 2)


def test_an_id_that_was_given_never_changes_back():
    rules = TableRules().adopt(renamed_in_database())
    both = plan_all(snapshot(OLD, NEW), rules).partition
    left = plan_changes(both, snapshot(OLD, generation=2), rules)
    assert left.partition.eids == {OLD: own(OLD, 1)}
    anew = plan_all(snapshot(OLD), rules, before=left.partition.given)  # as after a flush that failed
    assert anew.partition.eids == {OLD: own(OLD, 1)}
    gone = plan_changes(left.partition, snapshot(generation=3), rules)
    assert plan_changes(gone.partition, snapshot(OLD, generation=4), rules).partition.eids == {OLD: own(OLD, 1)}


def test_a_session_of_the_database_that_comes_takes_its_id_from_another_one():
    rules = TableRules().adopt(renamed_in_database())
    alone = plan_all(snapshot(OLD), rules).partition
    both = plan_changes(alone, snapshot(OLD, NEW, generation=2), rules)
    assert both.partition.eids == {NEW: own(OLD), OLD: own(OLD, 1)}
    assert both.gone == {(own(OLD), OLD)}
    assert both.added == {(own(OLD), NEW), (own(OLD, 1), OLD)}


def test_folders_of_the_lab_that_the_setting_gives_are_sessions_of_their_own():
    flat, filed = "s/2020-01-01/001", "lab/Subjects/s/2020-01-01/001"
    rules = TableRules(lab="lab")
    first, second = own("lab/s/2020-01-01/001"), own("lab/s/2020-01-01/001", 1)
    assert rules.eids(snapshot(flat, filed)) == {filed: first, flat: second}
    alone = plan_all(snapshot(flat), rules).partition
    assert plan_changes(alone, snapshot(flat, filed, generation=2), rules).partition.eids == {
        flat: first, filed: second,
    }  # fmt: skip


def test_a_change_of_the_lab_setting_changes_no_id_of_a_run():
    before = plan_all(snapshot(OLD), TableRules(lab="labA")).partition
    assert before.eids == {OLD: own(f"labA/{OLD}")}
    after = plan_all(snapshot(OLD, NEW), TableRules(lab="labB"), before=before.given).partition
    assert after.eids == {OLD: own(f"labA/{OLD}"), NEW: own(f"labB/{NEW}")}


def test_only_new_sessions_are_looked_at_where_nothing_collides(monkeypatch):
    rules = TableRules(
        known=KnownColumns.of(earlier({OLD: EarlierSession(uuid.UUID(int=7, version=4).bytes, "", "")}, {})), lab="lab"
    )
    many = [f"s{number}/2020-01-01/001" for number in range(50)]
    plan, looked = plan_all(snapshot(OLD, *many), rules), []
    claim = TableRules.claim
    monkeypatch.setattr(TableRules, "claim", lambda self, session: looked.append(session.path) or claim(self, session))
    plan_changes(plan.partition, snapshot(OLD, NEW, *many[1:], generation=2), rules)
    assert looked == [NEW]


@given(st.integers(0, 2**32))
def test_no_eid_is_there_twice_and_no_eid_changes_without_need(seed):
    rng = random.Random(seed)
    subjects = [f"s{number}" for number in range(6)]
    paths = [f"{subject}/2020-01-01/001" for subject in subjects]
    paths += [f"lab/Subjects/{path}" for path in paths]
    sessions = {path: EarlierSession(own(rng.choice(paths)), "", "") for path in rng.sample(paths[:6], 2)}
    lab = rng.choice(["", "lab"])
    plain = TableRules(lab=lab, known=KnownColumns.of(earlier(sessions, {}, rng.choice(["", "lab"]))))
    rule_sets = [plain]
    for _ in range(2):
        shuffled = rng.sample(subjects, 4)
        known = [
            {"id": text(own(rng.choice(["", "lab/"]) + f"{of}/2020-01-01/001")), "subject": subject, "lab": lab}
            for subject, of in zip(rng.sample(subjects, 4), shuffled, strict=True)
        ]
        rule_sets.append(plain.adopt(adopt(sessions_of(*known), datasets_of())))
    old, rules, given_before = None, rng.choice(rule_sets), NO_EIDS
    for generation in range(1, 7):
        now = snapshot(*rng.sample(paths, rng.randrange(13)), generation=generation)
        is_same = rng.random() < 0.7
        rules = rules if is_same else rng.choice(rule_sets)
        plan = plan_changes(old, now, rules) if old is not None and is_same else None
        if plan is None:
            plan = plan_all(now, rules, before=given_before)
        eids = plan.partition.eids
        assert eids.keys() == now.sessions.keys()
        assert len(set(eids.values())) == len(eids)
        assert [row["id"] for row in sessions_table(now, rules).to_pylist()] == sorted(
            text(eid) for eid in rules.eids(now).values()
        )
        known = {path: rules.claim(now.sessions[path]).adopted for path in eids}
        for eid in {*known.values()} - {None}:
            assert eid in eids.values(), "a session of the database has its id"
        for path, eid in eids.items():
            before = given_before.eids.get(path)
            was_own = path not in given_before.adopted
            if before is not None and was_own and eid != before:
                assert eid == known[path] or before in known.values(), "changed without need"
        assert plan.partition.given == plan_all(now, rules, before=given_before).partition.given or old is None
        old, given_before = plan.partition, plan.partition.given
