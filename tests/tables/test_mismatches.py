"""What a person should mend so that database and disk agree: told where it is, once, and not buried by what is not."""

import uuid

import pytest

from alfwatchd.tables.adoption import Adoption, adopt
from alfwatchd.tables.matching import Rows
from alfwatchd.tables.mismatches import Mismatches
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from kit.rows import datasets_of, folder_rows, sessions_of

S1, S2 = "s/2020-01-01/001", "s/2020-01-01/002"
E1, E2, D1, D2 = (str(uuid.UUID(int=0xE00 + number, version=4)) for number in range(4))
D3 = str(uuid.UUID(int=0xD000, version=4))


def here(*rel_paths, path=S1):
    folders = {}
    for rel_path in rel_paths:
        folder, _, name = rel_path.rpartition("/")
        folders.setdefault(folder, {})[name] = pack_signature(7, 2, 3, False)
    return Session(path, tuple(folder_rows(folder, files) for folder, files in sorted(folders.items())))


def find(adoption, *sessions, lab=""):
    return Mismatches(adoption).find({session.path: session for session in sessions}, lab)


NEAR_MISSES = [
    # story, what the database has of its one session, path here, `lab`, kind, path of the problem, message
    ("lab", {"lab": "Lab"}, f"lab/Subjects/{S1}", "", "adopt_spelling", f"lab/Subjects/{S1}", "Lab/s/2020-01-01/001"),
    ("subject", {"subject": "S"}, S1, "", "adopt_spelling", S1, "the database spells it S/2020-01-01/001"),
    ("another lab", {"lab": "b"}, f"a/Subjects/{S1}", "", "adopt_lab", "a/Subjects/s", "of this subject in lab 'b'"),
    ("another lab is set", {"lab": "b"}, S1, "a", "adopt_lab", "", "and not 'a': leave the"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "path", "lab", "kind", "place", "message"),
    [case[1:] for case in NEAR_MISSES],
    ids=[case[0] for case in NEAR_MISSES],
)
def test_names_that_nearly_agree_are_told(row, path, lab, kind, place, message):
    (problem,) = find(adopt(sessions_of({"id": E1, **row}), datasets_of()), here(path=path), lab=lab)
    assert (problem.kind, problem.path) == (kind, place)
    assert message in problem.message


def test_a_subject_in_another_lab_is_told_once_for_all_its_sessions():
    adoption = adopt(sessions_of({"id": E1, "lab": "b"}, {"id": E2, "lab": "b", "number": 2}), datasets_of())
    (problem,) = find(adoption, here(path=f"a/Subjects/{S1}"), here(path=f"a/Subjects/{S2}"))
    assert "the database has 2 sessions of this subject in lab 'b'" in problem.message


def test_a_session_in_no_lab_folder_that_two_labs_have_is_told():
    adoption = adopt(sessions_of({"id": E1, "lab": "a"}, {"id": E2, "lab": "b"}), datasets_of())
    (problem,) = find(adoption, here())
    assert "1 sessions in no lab folder are in 'a' and 'b' in the database" in problem.message


def test_sessions_that_agree_or_have_nothing_in_common_are_not_told():
    assert find(adopt(sessions_of({"id": E1}), datasets_of()), here(), here(path=S2)) == []
    assert find(adopt(sessions_of({"id": E1, "lab": "only"}), datasets_of()), here()) == []


def test_a_conflict_of_a_session_that_is_here_is_told_with_both_ids_and_the_others_are_counted():
    # 700 double sessions of other labs buried the one that was here.
    rows = [{"id": E1}, {"id": E2}]
    rows += [
        {"id": str(uuid.UUID(int=number, version=4)), "subject": f"t{number // 2}", "lab": "far"}
        for number in range(1400)
    ]
    adoption = adopt(sessions_of(*rows), datasets_of())
    own, others = find(adoption, here())
    assert (own.kind, own.path) == ("adopt_conflict", S1)
    assert E1 in own.message
    assert E2 in own.message
    assert (others.kind, others.path) == ("adopt_conflict", "")
    assert "in 700 rows of sessions that are not here, such as far/t0/2020-01-01/001" in others.message


def test_a_conflict_is_told_at_the_folder_that_it_is_about():
    rows = sessions_of({"id": E1, "lab": "a"}, {"id": E2, "lab": "a"})
    for path in (f"a/Subjects/{S1}", S1):
        (problem,) = find(adopt(rows, datasets_of()), here(path=path))
        assert problem.path == path
    adoption = adopt(sessions_of({"id": E1}), datasets_of({"eid": E1, "id": D1}, {"eid": E1, "id": D2}))
    (problem,) = find(adoption, here("a.b.c"))
    assert (problem.kind, problem.path) == ("adopt_conflict", f"{S1}/a.b.c")


def with_datasets(*rel_paths):
    ids = [str(uuid.UUID(int=0xD000 + number, version=4)) for number in range(len(rel_paths))]
    rows = [{"eid": E1, "id": own, "rel_path": path} for own, path in zip(ids, rel_paths, strict=True)]
    return adopt(sessions_of({"id": E1}), datasets_of(*rows))


UNMATCHED = [
    # story, here, in the database, what is told of it
    ("another collection", ["alf/a.b.c", "alf/d.e.f"], ["alf/p/a.b.c", "alf/p/d.e.f"], "there is alf/p/a.b.c"),
    ("other names", ["a.b.c"], ["x.y.z"], "here is a.b.c, there is x.y.z"),
    ("less than half", ["a.b.c", "d.e.f", "g.h.i"], ["a.b.c", "x/d.e.f", "x/g.h.i"], "knows 1 of the 3 datasets"),
    ("half", ["a.b.c", "d.e.f"], ["a.b.c", "x/d.e.f"], ""),
    ("only some are here", ["a.b.c"], ["a.b.c", "d.e.f", "g.h.i"], ""),
    ("only some are registered", ["a.b.c", "d.e.f", "g.h.i"], ["a.b.c"], ""),
    ("none is registered", ["a.b.c"], [], ""),
    ("none is here", [], ["a.b.c"], ""),
    ("ids in names", [f"a.b.{D3}.c"], ["a.b.c"], ""),
]  # fmt: skip


@pytest.mark.parametrize(("own", "told", "says"), [case[1:] for case in UNMATCHED], ids=[case[0] for case in UNMATCHED])
def test_a_session_that_matches_while_its_datasets_do_not_is_told(own, told, says):
    # Tables of Alyx whose paths were spoilt matched no dataset, and nothing was said.
    found = [each for each in find(with_datasets(*told), here(*own)) if each.kind == "adopt_unmatched"]
    assert [each.path for each in found] == ([S1] if says else [])
    assert all(says in each.message for each in found)


def test_many_sessions_whose_datasets_do_not_match_are_told_in_one_line(monkeypatch):
    """Row by row, only the one that is told is searched: for all of a million datasets, the daemon stood still."""
    asked, search = [], Adoption.find
    monkeypatch.setattr(Adoption, "find", lambda *given: asked.append(given) or search(*given))
    eids = [str(uuid.UUID(int=number, version=4)) for number in range(50)]
    datasets = [
        {"eid": eid, "id": str(uuid.UUID(int=999 + n, version=4)), "rel_path": "x.y.z"} for n, eid in enumerate(eids)
    ]
    adoption = adopt(sessions_of(*({"id": eid, "number": n} for n, eid in enumerate(eids))), datasets_of(*datasets))
    (problem,) = find(adoption, *(here("a.b.c", path=f"s/2020-01-01/{number:03d}") for number in range(50)))
    assert problem.message.startswith("50 sessions are in the database while most of their datasets are not")
    assert len(asked) == 1


def test_only_sessions_that_changed_are_compared_again(monkeypatch):
    mismatches, asked, exact = Mismatches(with_datasets("a.b.c")), [], Rows.exact

    def count(rows, numbers, paths):
        asked.append(len(paths))
        return exact(rows, numbers, paths)

    monkeypatch.setattr(Rows, "exact", count)
    session = here("x.y.z")
    first = mismatches.find({S1: session}, "")
    assert (len(first), asked.pop(0)) == (1, 1)
    asked.clear()
    assert mismatches.find({S1: session}, "") == first
    assert sum(asked) == 0
    assert mismatches.find({S1: here("a.b.c", "d.e.f")}, "") == []
    assert sum(asked) == 2


def test_a_file_name_that_tells_another_id_is_a_problem():
    adoption = with_datasets("alf/spikes.times.npy")
    names = [f"alf/spikes.times.{own}.npy" for own in (D2, D3)]
    (problem,) = find(adoption, here(*names))
    assert (problem.kind, problem.path) == ("adopt_conflict", f"{S1}/{names[0]}")
    assert D3 in problem.message
