import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.core.prune_plan import FileState, PlannedFile, Reference, make_plan
from alfwatchd.core.rows import Session, Signature, pack_signature
from alfwatchd.core.tables import Snapshot
from alfwatchd.errors import PruneRefused
from rows import folder_rows

FILE = Signature(file_size=10, mtime_ns=1_700_000_000_000_000_000, inode=7, is_link=False)
STATE = FileState(0, FILE.inode, FILE.file_size, FILE.mtime_ns, 0, None)
LINK = FILE._replace(inode=8, is_link=True)
OF_LINKED_SESSION = FILE._replace(inode=9)

SPIKES, CLUSTERS, REVISED = "alf/spikes.times.npy", "clusters.depths.npy", "alf/#2021-01-01#/spikes.times.npy"
S1 = "s/2020-01-01/001"
LAB_S1 = "lab/Subjects/s/2020-01-01/001"


def session(path, rel_paths, *, is_link=False):
    """Make a session; a rel_path that ends in `@` is a link to a file."""
    folders = {}
    for rel_path in rel_paths:
        folder, _, name = rel_path.removesuffix("@").rpartition("/")
        signature = LINK if rel_path.endswith("@") else OF_LINKED_SESSION if is_link else FILE
        folders.setdefault(folder, {})[name] = pack_signature(*signature)
    rows = tuple(folder_rows(folder, files) for folder, files in folders.items())
    return Session(path, rows, is_link)


def plan(disk, reference, *, lab="", remove_empty_sessions=True, max_fraction=None):
    sessions = {path: session(path, rel_paths) for path, rel_paths in disk.items()}
    return make_plan(
        Snapshot(1, sessions),
        Reference("/reference", {path: frozenset(rel_paths) for path, rel_paths in reference.items()}),
        lab=lab,
        remove_empty_sessions=remove_empty_sessions,
        max_fraction=max_fraction,
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
    ("the same datasets of another session", {S1: [SPIKES]}, {"s/2020-01-01/002": [SPIKES]}, [f"{S1}/{SPIKES}"], [S1]),
    (
        "the number is padded",
        {"s/2020-01-01/1": [SPIKES, CLUSTERS]},
        {S1: [SPIKES]},
        [f"s/2020-01-01/1/{CLUSTERS}"],
        [],
    ),
    ("labs are told apart", {LAB_S1: [SPIKES]}, {S1: [SPIKES]}, [f"{LAB_S1}/{SPIKES}"], [LAB_S1]),
    ("the lab folder is the lab", {LAB_S1: [SPIKES]}, {"lab/s/2020-01-01/001": [SPIKES]}, [], []),
    ("a link to a file stays", {S1: [f"{SPIKES}@", CLUSTERS]}, {S1: []}, [f"{S1}/{CLUSTERS}"], []),
    ("a link to a file keeps the folder", {S1: [f"{SPIKES}@", CLUSTERS]}, {}, [f"{S1}/{CLUSTERS}"], []),
]


@pytest.mark.parametrize(
    ("disk", "reference", "files", "folders"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_plan(disk, reference, files, folders):
    made = plan(disk, reference)
    assert [file.path for file in made.files] == files
    assert list(made.folders) == folders
    assert plan(disk, reference, remove_empty_sessions=False).folders == ()
    assert plan(disk, reference, remove_empty_sessions=False).files == made.files


# disk path, path in the reference, lab setting, matches
LAB_SETTING = [
    (S1, "lab/s/2020-01-01/001", "lab", True),
    (S1, "lab/s/2020-01-01/001", "", False),
    (S1, "lab/s/2020-01-01/001", "other", False),
    (S1, S1, "lab", True),
    ("s/2020-01-01/1", "lab/s/2020-01-01/001", "lab", True),
    (LAB_S1, "lab/s/2020-01-01/001", "lab", True),
    (LAB_S1, "other/s/2020-01-01/001", "other", False),
    (LAB_S1, S1, "lab", False),
]


@pytest.mark.parametrize(("path", "listed", "lab", "matches"), LAB_SETTING)
def test_the_lab_setting_stands_for_the_lab_of_trees_without_lab_folders(path, listed, lab, matches):
    made = plan({path: [SPIKES]}, {listed: [SPIKES]}, lab=lab)
    assert (made.files == (), made.folders == ()) == (matches, matches)


def test_a_dataset_stays_that_is_listed_with_the_lab_or_without():
    made = plan({S1: ["a.b.c", "d.e.f", "g.h.i"]}, {S1: ["a.b.c"], f"lab/{S1}": ["d.e.f"]}, lab="lab")
    assert [file.path for file in made.files] == [f"{S1}/g.h.i"]


def test_a_linked_session_is_left_alone():
    snapshot = Snapshot(1, {S1: session(S1, [SPIKES], is_link=True)})
    made = make_plan(snapshot, Reference("", {}), lab="", remove_empty_sessions=True, max_fraction=None)
    assert (made.files, made.folders, made.n_datasets) == ((), (), 1)


@pytest.mark.parametrize("signature", [LINK, OF_LINKED_SESSION])
def test_what_a_link_leads_to_stays(signature):
    # The link may be in the reference; without the file, it would lead nowhere.
    target, link = "t/2020-01-01/001", signature is LINK
    rows = folder_rows(
        "", {"a.b.c": pack_signature(*signature._replace(is_link=False)), "d.e.f": pack_signature(*FILE)}
    )
    sessions = {
        target: Session(target, (rows,)),
        S1: session(S1, [f"{SPIKES}@"[: 99 if link else -1]], is_link=not link),
    }
    for reference in ({}, {S1: {SPIKES}}, {S1: {SPIKES}, target: set()}):
        made = make_plan(
            Snapshot(1, sessions), Reference("", reference), lab="", remove_empty_sessions=True, max_fraction=None
        )
        assert [file.path for file in made.files] == [f"{target}/d.e.f"]
        assert made.folders == ()


# datasets on disk, how many are not listed, limit, refused
FRACTIONS = [
    (10, 0, 0.0, False),
    (10, 1, 0.0, True),
    (10, 1, 0.1, False),
    (10, 2, 0.1, True),
    (100, 29, 0.29, False),  # 0.29 * 100 is less than 29
    (3, 3, 0.99, True),
    (3, 3, 1.0, False),
    (3, 3, None, False),
    (3, 1, float("nan"), True),
    (0, 0, 0.1, False),
]


@pytest.mark.parametrize(("n_datasets", "n_unlisted", "max_fraction", "refused"), FRACTIONS)
def test_too_large_a_fraction_is_refused(n_datasets, n_unlisted, max_fraction, refused):
    names = [f"a.b{i}.npy" for i in range(n_datasets)]
    disk, reference = {S1: names}, {S1: names[n_unlisted:]}
    if not refused:
        assert len(plan(disk, reference, max_fraction=max_fraction).files) == n_unlisted
        return
    with pytest.raises(PruneRefused) as refusal:
        plan(disk, reference, max_fraction=max_fraction)
    for part in (f"{n_unlisted} of {n_datasets}", "/reference", "nothing was deleted", "--max-fraction 1"):
        assert part in str(refusal.value)


def test_a_plan_holds_what_its_apply_needs():
    made = plan({"b/2020-01-01/001": ["c.d.e", "a.b.c"], "a/2020-01-01/001": [SPIKES]}, {})
    assert (made.n_datasets, made.n_bytes, made.reference) == (3, 30, "/reference")
    assert made.files == (
        PlannedFile(f"a/2020-01-01/001/{SPIKES}", STATE),
        PlannedFile("b/2020-01-01/001/a.b.c", STATE),
        PlannedFile("b/2020-01-01/001/c.d.e", STATE),
    )
    assert made.folders == ("a/2020-01-01/001", "b/2020-01-01/001")


def test_the_id_tells_plans_apart():
    t1 = "t/2020-01-01/001"
    plans = [
        plan({S1: [SPIKES]}, {}),
        plan({S1: [SPIKES]}, {}, remove_empty_sessions=False),
        plan({S1: [SPIKES]}, {S1: []}),
        plan({S1: [SPIKES], t1: []}, {}),
        plan({S1: [SPIKES, CLUSTERS]}, {}),
        plan({S1: []}, {}),
        plan({}, {}),
    ]
    assert len({made.plan_id for made in plans}) == len({(made.files, made.folders) for made in plans}) == 6
    kept_elsewhere = plan({S1: [SPIKES], t1: [CLUSTERS]}, {t1: [CLUSTERS]})
    assert kept_elsewhere.plan_id == plans[0].plan_id


@pytest.mark.parametrize("change", [{"file_size": 11}, {"mtime_ns": 0}, {"inode": 8}])
def test_the_id_changes_with_a_file(change):
    def plan_id(signature):
        row = Session(S1, (folder_rows("", {"a.b.c": pack_signature(*signature)}),))
        snapshot = Snapshot(1, {S1: row})
        reference = Reference("", {})
        return make_plan(snapshot, reference, lab="", remove_empty_sessions=True, max_fraction=None).plan_id

    assert plan_id(FILE) == plan_id(FILE._replace()) != plan_id(FILE._replace(**change))


LABS = ("", "lab", "other")
rel_path_sets = st.sets(st.sampled_from([SPIKES, CLUSTERS, REVISED, "links.times.npy@", "a.b.c"]), max_size=4)
disk_paths = st.builds(
    lambda lab, subject, number: f"{f'{lab}/Subjects/' if lab else ''}{subject}/2020-01-01/{number}",
    st.sampled_from(LABS),
    st.sampled_from("st"),
    st.sampled_from(["1", "002"]),
)
reference_paths = st.builds(
    lambda lab, subject, number: f"{f'{lab}/' if lab else ''}{subject}/2020-01-01/{number}",
    st.sampled_from(LABS),
    st.sampled_from("st"),
    st.sampled_from(["001", "002"]),
)


@given(
    disk=st.dictionaries(disk_paths, rel_path_sets, max_size=6),
    reference=st.dictionaries(reference_paths, rel_path_sets, max_size=6),
    linked=st.sets(disk_paths, max_size=2),
    lab=st.sampled_from(LABS),
)
def test_what_goes_is_the_difference(disk, reference, linked, lab):
    sessions = {path: session(path, names, is_link=path in linked) for path, names in disk.items()}
    made = make_plan(
        Snapshot(1, sessions), Reference("", reference), lab=lab, remove_empty_sessions=True, max_fraction=None
    )
    assert {file.path for file in made.files} == {
        f"{path}/{rel_path}"
        for path, row in sessions.items()
        for rel_path, value in row.datasets()
        if path not in linked
        and value == pack_signature(*FILE)
        and not any(rel_path in reference.get(name, ()) for name in names_of(path, lab))
    }
    assert set(made.folders) == {
        path
        for path, names in disk.items()
        if path not in linked
        and not any(name.endswith("@") for name in names)
        and reference.keys().isdisjoint(names_of(path, lab))
    }
    assert list(made.files) == sorted(made.files, key=lambda file: file.path)
    assert list(made.folders) == sorted(made.folders)


def names_of(path, lab):
    """Return the names that tables may have for a session on disk."""
    *own_lab, subject, date, number = path.replace("/Subjects/", "/").split("/")
    name = f"{subject}/{date}/{number.zfill(3)}"
    if own_lab:
        return {f"{own_lab[0]}/{name}"}
    return {name, f"{lab}/{name}"} if lab else {name}


def test_a_plan_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan({S1: [SPIKES]}, {}).files = ()
