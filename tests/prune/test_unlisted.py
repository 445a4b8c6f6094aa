"""What goes and what stays, by names alone: one rule for prune, `remove_missing_datasets` and adopt."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.errors import PruneRefused
from alfwatchd.prune.reference import make_reference
from alfwatchd.tables.adoption import adopt
from kit.prune import ORIGIN, reference_of
from kit.rows import datasets_of, sessions_of
from kit.unlisted import (
    CLUSTERS,
    E1,
    E2,
    KOREAN,
    KOREAN_FILE,
    KOREAN_LAB,
    KOREAN_SUBJECT,
    LAB_S1,
    REVISED,
    S1,
    S2,
    SPIKES,
    U1,
    U2,
    UNPADDED,
    find,
    listed,
    nfc,
    nfd,
    session,
    with_uuid,
)

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
