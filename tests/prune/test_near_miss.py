"""What a reference nearly lists, under another spelling, lab, subject, number or id, stays and says why."""

import datetime
import uuid

import pytest

from alfwatchd.alf import ids
from alfwatchd.prune.reference import make_reference
from kit.prune import ORIGIN
from kit.rows import datasets_of, sessions_of
from kit.unlisted import (
    CLUSTERS,
    E1,
    LAB_S1,
    S1,
    S2,
    SPIKES,
    U1,
    U2,
    U3,
    find,
    listed,
    with_uuid,
)

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


def test_datasets_of_an_alyx_that_calls_no_revision_nan_stay():
    # Under pandas 3, Alyx has "alf/#nan#/x" in its tables for a dataset in no revision folder: all would have gone.
    reference = listed({f"lab/{S1}": [SPIKES.replace("alf/", "alf/#nan#/")]})
    kept = {f"{LAB_S1}/{SPIKES}": f"near miss: the reference spells it {SPIKES.replace('alf/', 'alf/#nan#/')}"}
    assert find({LAB_S1: [SPIKES]}, reference) == ([], [], kept)
