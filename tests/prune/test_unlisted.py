"""What goes and what stays, by names alone: one rule for prune, `remove_missing_datasets` and adopt."""

import datetime
import unicodedata
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.alf import ids
from alfwatchd.errors import PruneRefused
from alfwatchd.prune.near_miss import NearMisses
from alfwatchd.prune.reference import make_reference
from alfwatchd.prune.unlisted import Kept, find_unlisted
from alfwatchd.tables.adoption import adopt
from alfwatchd.tree.packed import Signature, pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.prune import COMMON, ORIGIN, reference_of
from kit.rows import datasets_of, folder_rows, sessions_of

FILE = Signature(file_size=10, mtime_ns=1_700_000_000_000_000_000, inode=7, is_link=False)
LINK = FILE._replace(inode=8, is_link=True)
SPIKES, CLUSTERS, REVISED = "alf/spikes.times.npy", "clusters.depths.npy", "alf/#2021-01-01#/spikes.times.npy"
S1, S2, UNPADDED = "s/2020-01-01/001", "s/2020-01-01/002", "s/2020-01-01/1"
LAB_S1 = "lab/Subjects/s/2020-01-01/001"
U1, U2, U3 = (str(uuid.UUID(int=number, version=4)) for number in (1, 2, 3))
E1, E2 = (str(uuid.UUID(int=number, version=4)) for number in (11, 12))


def nfc(text):
    return unicodedata.normalize("NFC", text)


def nfd(text):
    return unicodedata.normalize("NFD", text)


KOREAN = "\ud55c\uae00"
"""Its parts in decomposed form are letters as well, so that both forms are names of subjects, labs and files."""


def with_uuid(rel_path, own_id):
    stem, _, extension = rel_path.rpartition(".")
    return f"{stem}.{own_id}.{extension}"


def session(path, rel_paths, *, is_link=False, size=10):
    """Make a session; a rel_path that ends in `@` is a link to a file."""
    folders = {}
    for rel_path in rel_paths:
        folder, _, name = rel_path.removesuffix("@").rpartition("/")
        signature = LINK if rel_path.endswith("@") else FILE._replace(file_size=size)
        folders.setdefault(folder, {})[name] = pack_signature(*signature)
    rows = tuple(folder_rows(folder, files) for folder, files in folders.items())
    return Session(path, rows, is_link)


def find(disk, reference, *, remove_empty_sessions=True, eids=None, common=True):
    """Return files to go, folders to go, and path -> reason of what is kept; all but a session that all have."""
    sessions = {path: each if isinstance(each, Session) else session(path, each) for path, each in disk.items()}
    if common:
        sessions[COMMON] = Session(COMMON)
    near = NearMisses(reference, sessions, eids or {}, ids.NAMESPACE)
    kept = Kept()
    found = [*find_unlisted(Snapshot(1, sessions), reference, near, kept, remove_empty_sessions=remove_empty_sessions)]
    files = [f"{each.path}/{rel_path}" for each in found for rel_path, _ in each.files]
    return files, [each.path for each in found if each.is_removable], {item.path: item.reason for item in kept.items}


def listed(reference):
    return reference_of({COMMON: {"a.b.c"}, **reference})


CASES = [
    # story, on disk, in the reference, files to go, folders to go
    ("all is listed", {S1: [SPIKES, CLUSTERS]}, {S1: [SPIKES, CLUSTERS]}, [], []),
    ("files only in the reference are no matter", {S1: [SPIKES]}, {S1: [SPIKES, CLUSTERS]}, [], []),
    ("one file is not listed", {S1: [SPIKES, CLUSTERS]}, {S1: [SPIKES]}, [f"{S1}/{CLUSTERS}"], []),
    ("another revision is another dataset", {S1: [SPIKES, REVISED]}, {S1: [SPIKES]}, [f"{S1}/{REVISED}"], []),
    ("rel_path counts, not the name", {S1: ["spikes.times.npy"]}, {S1: [SPIKES]}, [f"{S1}/spikes.times.npy"], []),
    ("a prefix is no match", {S1: ["a.b.np"]}, {S1: ["a.b.npy"]}, [f"{S1}/a.b.np"], []),
    ("a listed session stays though empty", {S1: []}, {S1: []}, [], []),
    ("a listed session stays though emptied", {S1: [SPIKES]}, {S1: []}, [f"{S1}/{SPIKES}"], []),
    ("a session that is not listed", {S1: [SPIKES]}, {}, [f"{S1}/{SPIKES}"], [S1]),
    ("an empty session that is not listed", {S1: []}, {}, [], [S1]),
    ("another session that is here as well", {S1: [SPIKES], S2: [SPIKES]}, {S2: [SPIKES]}, [f"{S1}/{SPIKES}"], [S1]),
    ("the number is padded", {UNPADDED: [SPIKES, CLUSTERS]}, {S1: [SPIKES]}, [f"{UNPADDED}/{CLUSTERS}"], []),
    ("the lab folder is the lab", {LAB_S1: [SPIKES]}, {"lab/s/2020-01-01/001": [SPIKES]}, [], []),
    ("no lab folder is any lab", {S1: [SPIKES, CLUSTERS]}, {f"lab/{S1}": [SPIKES]}, [f"{S1}/{CLUSTERS}"], []),
    ("two labs, no lab folder", {S1: [SPIKES, "a.b.c"]}, {f"x/{S1}": [SPIKES], f"y/{S1}": ["a.b.c"]}, [], []),
    ("a link to a file stays", {S1: [f"{SPIKES}@", CLUSTERS]}, {S1: []}, [f"{S1}/{CLUSTERS}"], []),
    ("a link to a file keeps the folder", {S1: [f"{SPIKES}@", CLUSTERS]}, {}, [f"{S1}/{CLUSTERS}"], []),
    ("a linked session", {S1: session(S1, [SPIKES], is_link=True)}, {}, [], []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("disk", "reference", "files", "folders"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_is_not_listed_may_go(disk, reference, files, folders):
    assert find(disk, listed(reference)) == (files, folders, {})
    assert find(disk, listed(reference), remove_empty_sessions=False)[:2] == (files, [])


KOREAN_LAB, KOREAN_SUBJECT = f"{KOREAN}/s/2020-01-01/001", f"lab/{KOREAN}/2020-01-01/001"
KOREAN_FILE = f"alf/{KOREAN}.times.npy"
SAME = [
    # story, path of the session on disk, its file, session in the reference, its dataset, more of the dataset's row
    ("a UUID here", LAB_S1, with_uuid(SPIKES, U1), f"lab/{S1}", SPIKES, {"id": U1}),
    ("another UUID here", LAB_S1, with_uuid(SPIKES, U1), f"lab/{S1}", SPIKES, {"id": U2}),
    ("a UUID there", LAB_S1, SPIKES, f"lab/{S1}", with_uuid(SPIKES, U1), {"id": U1}),
    ("a UUID here and there", LAB_S1, with_uuid(SPIKES, U1), f"lab/{S1}", with_uuid(SPIKES, U2), {"id": U2}),
    ("a UUID in a revision", LAB_S1, with_uuid(REVISED, U1), f"lab/{S1}", REVISED, {"id": U1}),
    ("an unpadded number", "lab/Subjects/s/2020-01-01/1", SPIKES, f"lab/{S1}", SPIKES, {}),
    ("subject NFD here", f"lab/Subjects/{nfd(KOREAN)}/2020-01-01/001", SPIKES, nfc(KOREAN_SUBJECT), SPIKES, {}),
    ("subject NFD there", f"lab/Subjects/{nfc(KOREAN)}/2020-01-01/001", SPIKES, nfd(KOREAN_SUBJECT), SPIKES, {}),
    ("lab NFD here", f"{nfd(KOREAN)}/Subjects/{S1}", SPIKES, nfc(KOREAN_LAB), SPIKES, {}),
    ("lab NFD there", f"{nfc(KOREAN)}/Subjects/{S1}", SPIKES, nfd(KOREAN_LAB), SPIKES, {}),
    ("file NFD here", LAB_S1, nfd(KOREAN_FILE), f"lab/{S1}", nfc(KOREAN_FILE), {}),
    ("file NFD there", LAB_S1, nfc(KOREAN_FILE), f"lab/{S1}", nfd(KOREAN_FILE), {}),
    ("no lab, NFD", f"{nfd(KOREAN)}/2020-01-01/001", SPIKES, nfc(KOREAN_SUBJECT), SPIKES, {}),
]


@pytest.mark.parametrize(
    ("here", "file", "there", "dataset", "more"), [case[1:] for case in SAME], ids=[case[0] for case in SAME]
)
def test_what_may_be_a_listed_dataset_stays(here, file, there, dataset, more):
    reference = listed({there: {dataset: more}})
    assert find({here: [file, "other.file.npy"]}, reference) == ([f"{here}/other.file.npy"], [], {})


SPELLS = "near miss: the reference spells this session"
OTHER_LAB = "near miss: the reference has this session in another lab, as"
NEAR = [
    # story, path of the session on disk, session in the reference, reason
    ("case of the subject", "lab/Subjects/S/2020-01-01/001", f"lab/{S1}", f"{SPELLS} lab/{S1}"),
    ("case of the lab", f"LAB/Subjects/{S1}", f"lab/{S1}", f"{SPELLS} lab/{S1}"),
    ("another lab", f"other/Subjects/{S1}", f"lab/{S1}", f"{OTHER_LAB} lab/{S1}"),
    ("no lab", LAB_S1, S1, f"{OTHER_LAB} {S1}"),
    ("case, no lab", "S/2020-01-01/001", f"lab/{S1}", f"{OTHER_LAB} lab/{S1}"),
]  # fmt: skip


@pytest.mark.parametrize(("here", "there", "reason"), [case[1:] for case in NEAR], ids=[case[0] for case in NEAR])
def test_a_session_that_is_nearly_listed_stays_with_the_reason(here, there, reason):
    reference = listed({there: [SPIKES]})
    expected = {f"{here}/{CLUSTERS}": reason, f"{here}/{SPIKES}": reason}
    assert find({here: [SPIKES, CLUSTERS]}, reference) == ([], [], expected)
    assert find({here: []}, reference) == ([], [], {here: reason})


RENAMED = [
    # story, on disk, in the reference, whether it stays
    ("another number", [SPIKES, CLUSTERS], "lab/s/2020-01-01/007", {SPIKES: {}, CLUSTERS: {}}, True),
    ("another subject", [SPIKES, CLUSTERS], "lab/t/2020-01-01/001", {SPIKES: {}, CLUSTERS: {}}, True),
    ("half of the datasets", [SPIKES, CLUSTERS], "lab/t/2020-01-01/001", {SPIKES: {}}, True),
    ("less than half", [SPIKES, CLUSTERS, "a.b.c"], "lab/t/2020-01-01/001", {SPIKES: {}}, False),
    ("unknown sizes", [SPIKES], "lab/t/2020-01-01/001", {SPIKES: {"file_size": None}}, True),
    ("other sizes", [SPIKES], "lab/t/2020-01-01/001", {SPIKES: {"file_size": 11}}, False),
    ("another date", [SPIKES], "lab/t/2020-01-02/001", {SPIKES: {}}, False),
]


@pytest.mark.parametrize(
    ("names", "there", "datasets", "stays"), [case[1:] for case in RENAMED], ids=[case[0] for case in RENAMED]
)
def test_a_session_under_another_subject_or_number_stays(names, there, datasets, stays):
    reference = listed({there: {name: {"file_size": 10} | row for name, row in datasets.items()}})
    files, folders, kept = find({LAB_S1: names}, reference)
    if not stays:
        assert (len(files), folders, kept) == (len(names), [LAB_S1], {})
        return
    reason = f"near miss: the reference has {there}, which is not here, with the same datasets"
    assert (files, folders, set(kept.values())) == ([], [], {reason})
    # If that session is here, this is another one.
    *lab, rest = there.partition("/")[::2]
    files, *_ = find({LAB_S1: names, f"{lab[0]}/Subjects/{rest}": []}, reference)
    assert len(files) == len(names)


def test_a_session_whose_id_is_listed_for_another_path_stays():
    there = "lab/renamed/2020-01-01/001"
    for eid, eids in (
        (uuid.UUID(bytes=ids.session_id(f"lab/{S1}")), {}),
        (uuid.UUID(E1), {f"lab/{S1}": uuid.UUID(E1).bytes}),
    ):
        sessions = sessions_of(
            {"id": "common", "subject": "listed", "date": datetime.date(2000, 1, 1)},
            {"id": str(eid), "lab": "lab", "subject": "renamed"},
        )
        datasets = datasets_of({"eid": str(eid), "rel_path": "q.r.s"})
        reference = make_reference(ORIGIN, sessions, datasets)
        reason = f"near miss: the reference has this session as {there}"
        assert find({LAB_S1: [SPIKES]}, reference, eids=eids) == ([], [], {f"{LAB_S1}/{SPIKES}": reason})


def test_a_dataset_that_is_nearly_listed_stays_with_the_reason():
    reference = listed({S1: {"alf/Spikes.times.npy": {}, with_uuid("alf/Clusters.a.npy", U1): {"id": U1}}})
    odd = "alf/spikes.times.C2D0C4BE-0D5D-11B2-8A3C-0242AC120002.npy"  # of version 1, in capitals
    files = [SPIKES, "alf/clusters.a.npy", with_uuid(SPIKES, U2), odd, "x.y.z"]
    assert find({S1: files}, reference) == ([f"{S1}/x.y.z"], [], {
        f"{S1}/{SPIKES}": "near miss: the reference spells it alf/Spikes.times.npy",
        f"{S1}/{odd}": "near miss: the reference spells it alf/Spikes.times.npy",
        f"{S1}/{with_uuid(SPIKES, U2)}": "near miss: the reference spells it alf/Spikes.times.npy",
        f"{S1}/alf/clusters.a.npy": f"near miss: the reference spells it {with_uuid('alf/Clusters.a.npy', U1)}",
    })  # fmt: skip


def test_a_file_whose_id_is_listed_stays_wherever_it_lies():
    reference = listed({S1: {SPIKES: {"id": U1}}})
    here = f"t/2021-02-03/004/{with_uuid('raw/moved.file.npy', U1)}"
    reason = "its id is listed: the reference has it for another path"
    assert find({"t/2021-02-03/004": [here[17:], "a.b.c"], S1: []}, reference) == (
        ["t/2021-02-03/004/a.b.c"], [], {here: reason})  # fmt: skip


def test_rows_without_their_session_protect():
    sessions = sessions_of({"id": "a"}, {"id": "b", "number": 2})
    rows = [{"eid": "a", "rel_path": f"many{number}.files.npy"} for number in range(200)]
    rows += [{"eid": "gone", "rel_path": SPIKES}, {"eid": None, "rel_path": with_uuid("raw/x.y.npy", U1), "id": U2}]
    reference = make_reference(ORIGIN, sessions, datasets_of(*rows))
    moved = with_uuid("moved.file.npy", U2)
    files, _, kept = find(
        {S1: [SPIKES], S2: [with_uuid(SPIKES, U3), "raw/x.y.npy"], "t/2020-01-01/001": [SPIKES, moved, "q.r.s"]},
        reference,
    )
    assert files == ["t/2020-01-01/001/q.r.s"]
    assert set(kept.values()) == {"listed without its session"}
    assert len(kept) == 5


def test_what_is_ambiguous_protects():
    # Two sessions of one path, two paths of one id, two rows of one dataset, a folder told by two sessions.
    sessions = sessions_of(
        {"id": E1}, {"id": E2}, {"id": "c", "number": 2}, {"id": "c", "number": 3}, {"id": None, "number": 4}
    )
    datasets = datasets_of(
        {"eid": E1, "rel_path": "a.b.c", "session_path": "u/2020-01-01/001"},
        {"eid": E2, "rel_path": "d.e.f", "session_path": "u/2020-01-01/001"},
        {"eid": "c", "rel_path": "g.h.i", "id": U1, "session_path": None},
        {"eid": "c", "rel_path": "g.h.i", "id": U2, "session_path": None},
    )
    reference = make_reference(ORIGIN, sessions, datasets)
    disk = {
        S1: ["a.b.c", "d.e.f", "x.y.z"],
        S2: ["g.h.i", "x.y.z"],
        "s/2020-01-01/003": ["g.h.i"],
        "s/2020-01-01/004": ["x.y.z"],
        "u/2020-01-01/1": ["a.b.c", "d.e.f", "x.y.z"],
    }
    files, folders, kept = find(disk, reference, common=False)
    assert files == [f"{S1}/x.y.z", f"{S2}/x.y.z", "s/2020-01-01/004/x.y.z", "u/2020-01-01/1/x.y.z"]
    assert (folders, kept) == ([], {})


@pytest.mark.parametrize("common", [False, True])
def test_a_reference_of_another_tree_is_refused(common):
    reference = reference_of({"other/2020-01-01/001": [SPIKES], **({S1: []} if common else {})})
    if common:
        assert find({S1: [SPIKES]}, reference, common=False)[0] == [f"{S1}/{SPIKES}"]
        return
    with pytest.raises(PruneRefused, match="has none of the 1 sessions here"):
        find({S1: [SPIKES]}, reference, common=False)
    assert find({}, reference, common=False) == ([], [], {})


# What adopt matches stays, whatever it is.

PARTS = {
    "lab": ["", "lab", "LAB", nfc(KOREAN), nfd(KOREAN)],
    "subject": ["s", "S", nfc(KOREAN), nfd(KOREAN)],
    "number": ["1", "001", "02"],
    "rel_path": [SPIKES, "alf/Spikes.times.npy", CLUSTERS, REVISED, nfc(KOREAN_FILE), nfd(KOREAN_FILE)],
    "id": ["", U1, U2],
}
drawn = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in PARTS.items()})


@given(
    disk=st.lists(drawn, min_size=1, max_size=6), rows=st.lists(drawn, min_size=1, max_size=6), elsewhere=st.booleans()
)
def test_what_adopt_matches_stays(disk, rows, elsewhere):
    named = [(each, with_uuid(each["rel_path"], each["id"]) if each["id"] else each["rel_path"]) for each in disk]
    sessions = {}
    for each, name in named:
        lab = f"{each['lab']}/Subjects/" if each["lab"] else ""
        sessions.setdefault(f"{lab}{each['subject']}/2020-01-01/{each['number']}", set()).add(name)
    sessions = {path: session(path, names) for path, names in sessions.items()}
    eids = {}
    of_datasets = []
    for number, row in enumerate(rows):
        key = row["lab"], row["subject"], int(row["number"])
        eid = eids.setdefault(key, str(uuid.UUID(int=100 + len(eids), version=4)))
        told = f"{row['lab']}/Subjects/t/2020-01-01/001" if elsewhere and row["lab"] else None
        of_datasets.append({
            "eid": eid, "id": row["id"] or str(uuid.UUID(int=200 + number, version=4)), "rel_path": row["rel_path"],
            "session_path": told,
        })  # fmt: skip
    tables = (
        sessions_of(*({"id": eid, "lab": lab, "subject": s, "number": n} for (lab, s, n), eid in eids.items())),
        datasets_of(*of_datasets),
    )
    adoption = adopt(*tables)
    try:
        files, folders, _ = find(sessions, make_reference(ORIGIN, *tables), common=False)
    except PruneRefused:
        return
    for path, row in sessions.items():
        known = adoption.session_at(row.key.eid_path)
        if known is None:
            continue
        names = [rel_path for rel_path, _ in row.datasets()]
        places = adoption.find([known], [len(names)], [name.encode() for name in names])
        matched = {f"{path}/{name}" for name, place in zip(names, places.tolist(), strict=True) if place >= 0}
        assert matched.isdisjoint(files)
        assert path not in folders
