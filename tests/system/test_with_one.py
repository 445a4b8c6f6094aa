"""The real ONE answers from our tables of real IBL data, and what it says is what is on disk."""

import logging
import shutil
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one.alf.cache import merge_tables
from one.alf.io import load_file_content
from one.api import One

from kit.program import SESSIONS, listed, make_ibl_tree, program, walk, write_dataset

UNPADDED = {"mainenlab/Subjects/clns0730/2018-08-24/1", "mainenlab/Subjects/flowers/2018-07-13/1"}
"""Real folders, whose files One cannot find: it always pads the number."""
REVISED = "cortexlab/Subjects/KS005/2019-04-01/001"
WIDEST = "mainenlab/Subjects/ZFM-01935/2021-02-05/001"
"""The session with files of most types."""
REVISIONS = ("2020-08-31", "2021-07-06")
CHOICE = "_ibl_trials.choice.npy"

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")  # in ONE itself


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The tree, with two revisions of one dataset, indexed."""
    folder = make_ibl_tree(tmp_path_factory.mktemp("ibl"))
    for number, revision in enumerate(REVISIONS, 2000):
        (folder / REVISED / f"alf/#{revision}#").mkdir()
        write_dataset(folder / REVISED / f"alf/#{revision}#" / CHOICE, number)
    with program(folder) as made:
        made.make_tables()
    return folder


@pytest.fixture(scope="module")
def one(root):
    return One(cache_dir=root, mode="local")


@pytest.fixture(scope="module")
def on_disk(root):
    """Session path -> rel_path -> file, found without program and ONE."""
    return {
        session.relative_to(root).as_posix(): {
            file.relative_to(session).as_posix(): file for file in session.rglob("*") if file.is_file()
        }
        for session in root.glob(SESSIONS)
    }


def padded(session):
    day, _, number = session.rpartition("/")
    return f"{day}/{int(number):03d}"


def same(found, expected):
    """Tell whether two loaded contents are equal."""
    if isinstance(expected, pd.DataFrame):
        return found.equals(expected)
    return np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected


def test_search_finds_all_sessions_and_paths_lead_to_ids_and_back(one, root, on_disk):
    eids = one.search()
    assert len(set(eids)) == len(on_disk) == 26
    paths = {eid: one.eid2path(eid) for eid in eids}
    assert {path.relative_to(root).as_posix() for path in paths.values()} == {padded(session) for session in on_disk}
    for eid, path in paths.items():
        assert one.path2eid(path) == eid
        assert one.path2eid(path / "alf" / CHOICE) == eid


def test_search_by_lab_subject_date_number_and_dataset(one, on_disk):
    def found(**terms):
        return {one.eid2path(eid).session_path_short(include_lab=True) for eid in one.search(**terms)}

    def expected(text, dataset=None):
        # session_path_short: lab/subject/date/number
        return {
            padded(session).replace("Subjects/", "")
            for session, files in on_disk.items()
            if text in session and (dataset is None or dataset in {file.name for file in files.values()})
        }

    assert found(lab="cortexlab") == expected("cortexlab/")
    assert found(subject="ZM_1743") == expected("/ZM_1743/")
    assert found(subject="KS005", number=3) == {"cortexlab/KS005/2019-04-10/003"}
    assert found(date_range=["2018-01-01", "2018-12-31"]) == expected("/2018-")
    assert found(datasets="spikes.times.npy") == expected("", "spikes.times.npy") != set()
    assert found(subject="nobody") == set()


def test_list_datasets_of_every_session_is_what_is_on_disk(one, on_disk):
    for session, files in on_disk.items():
        eid = one.path2eid(one.cache_dir / padded(session))
        assert sorted(one.list_datasets(eid) if files else []) == sorted(files)  # without any, it is a DataFrame
        details = one.list_datasets(eid, details=True)
        sizes = dict(zip(details["rel_path"], details["file_size"], strict=True))
        assert sizes == {rel_path: file.stat().st_size for rel_path, file in files.items()}
    assert set(one.list_datasets()) == {rel_path for files in on_disk.values() for rel_path in files}


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.heavy)])
def test_every_dataset_loads_by_name_or_id_and_is_the_file_on_disk(one, root, on_disk, caplog, all_of_them):
    n_loaded, chosen = 0, on_disk.keys() - UNPADDED if all_of_them else {REVISED, WIDEST}
    with caplog.at_level(logging.WARNING):
        for session in chosen:
            eid = one.path2eid(root / session)
            details = one.list_datasets(eid, details=True) if on_disk[session] else pd.DataFrame({"rel_path": []})
            for number, (dataset_id, rel_path) in enumerate(details["rel_path"].items()):
                expected = load_file_content(on_disk[session][rel_path])
                assert same(one.load_dataset(eid, rel_path), expected), rel_path
                if number % 4 == 0:  # the slower way
                    assert same(one.load_dataset_from_id(dataset_id), expected), rel_path
                n_loaded += 1
    assert n_loaded == sum(len(on_disk[session]) for session in chosen) > 100
    if all_of_them:
        assert n_loaded == 693 + len(REVISIONS) - sum(len(on_disk[session]) for session in UNPADDED) == 662
    # Neither a wrong size nor a wrong hash. An explicit path of an old revision is worth a remark.
    assert {record.getMessage() for record in caplog.records if "revis" not in record.getMessage()} == set()


def test_each_dataset_has_an_id_of_its_own_that_leads_to_its_file(one, root, on_disk):
    details = one.list_datasets(details=True)
    assert len(details) == len(set(details.index.get_level_values("id"))) == 693 + len(REVISIONS)
    for (eid, dataset_id), record in details.sample(50, random_state=1).iterrows():
        assert isinstance(dataset_id, UUID)
        session = one.eid2path(eid).relative_to(root).as_posix()
        path = root / session / record["rel_path"]
        assert one.record2path(record.rename((eid, dataset_id))) == path
        found = one.path2record(path)
        assert found["rel_path"] == record["rel_path"]


def test_collections_and_revisions(one, root, on_disk):
    for session in [REVISED, WIDEST]:
        folders = {rel_path.rpartition("/")[0] for rel_path in on_disk[session]}
        collections = {folder.partition("/#")[0] for folder in folders}
        assert set(one.list_collections(one.path2eid(root / session))) == collections
    eid = one.path2eid(root / REVISED)
    assert set(one.list_revisions(eid)) == {"", *REVISIONS}
    assert set(one.list_revisions(eid, filename=CHOICE, collection="alf")) == {"", *REVISIONS}

    newest = np.load(root / REVISED / f"alf/#{REVISIONS[1]}#" / CHOICE)
    older = np.load(root / REVISED / f"alf/#{REVISIONS[0]}#" / CHOICE)
    first = np.load(root / REVISED / "alf" / CHOICE)
    assert len({len(newest), len(older), len(first)}) == 3
    assert same(one.load_dataset(eid, CHOICE, collection="alf"), newest)
    assert same(one.load_dataset(eid, CHOICE, collection="alf", revision="2020-12-31"), older)
    assert same(one.load_dataset(eid, f"alf/{CHOICE}"), first)


def test_an_open_one_keeps_its_ids_when_the_tables_change(tmp_path):
    root = make_ibl_tree(tmp_path)
    with program(root) as made:
        made.start()
        one = One(cache_dir=root, mode="local")
        eid = one.path2eid(root / REVISED)
        shutil.copytree(root / REVISED, root / "cortexlab/Subjects/new/2019-04-01/001")
        write_dataset(root / REVISED / "alf" / CHOICE, 999)
        made.run("sync")
        one.load_cache()
        assert len(one.search(subject="new")) == 1
        assert one.path2eid(root / REVISED) == eid
        assert same(one.load_dataset(eid, CHOICE), np.arange(1000.0))
        assert len(one.list_datasets(details=True)) == len(walk(root))


# Ids are dictionaries, for speed: One must not notice.


def plain_copy(root, folder):
    """Write the same tables as they would be with ids that are plain strings."""
    for name in ("sessions", "datasets"):
        with pq.ParquetFile(root / f"{name}.pqt") as file:
            table = file.read()
        for column in {"eid", "id"} & set(table.column_names):
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, table.column(column).cast(pa.string()))
        pq.write_table(table, folder / f"{name}.pqt")
    return One(cache_dir=root, tables_dir=folder, mode="local")


def as_text(found):
    """Return a result in a form that can be compared, with its order and all its ids."""
    if isinstance(found, pd.DataFrame):
        frame = found.reset_index()
        return list(map(str, frame.columns)), [tuple(map(str, row)) for row in frame.itertuples(index=False)]
    return repr(found)


QUERIES = {
    "tables": lambda one, eid: one._cache["datasets"],
    "search": lambda one, eid: one.search(),
    "dataset of one subject": lambda one, eid: one.search(subject="KS005", datasets=CHOICE),
    "datasets of one lab": lambda one, eid: one.search(lab="cortexlab", datasets=[CHOICE, "_ibl_wheel.position.npy"]),
    "no dataset of one subject": lambda one, eid: one.search(subject="KS005", datasets="no.such.npy"),
    "quality": lambda one, eid: one.search(number=1, dataset_qc_lte="PASS", datasets=CHOICE),
    "details": lambda one, eid: one.search(subject="KS005", datasets=CHOICE, details=True),
    "list": lambda one, eid: one.list_datasets(eid),
    "list with details": lambda one, eid: one.list_datasets(eid, details=True, keep_eid_index=True),
    "list by name": lambda one, eid: one.list_datasets(filename="*spikes*", details=True),
    "default revisions": lambda one, eid: one.list_datasets(eid, default_revisions_only=True, details=True),
    "collections": lambda one, eid: one.list_collections(eid, details=True),
    "revisions": lambda one, eid: one.list_revisions(eid, details=True),
    "session": lambda one, eid: one.get_details(eid, full=True),
    "path": lambda one, eid: one.path2record(one.eid2path(eid) / "alf" / CHOICE),
    "object": lambda one, eid: one.load_object(eid, "wheel", collection="alf", download_only=True),
    "collection": lambda one, eid: one.load_collection(eid, "alf", object="*trials*", download_only=True),
    "files": lambda one, eid: one._check_filesystem(one.list_datasets(eid, details=True, keep_eid_index=True)),
    "sorted": lambda one, eid: one._cache["datasets"].index.is_monotonic_increasing,
}


def ask(query, one, root):
    try:
        return as_text(query(one, one.path2eid(root / REVISED)))
    except Exception as error:  # noqa: BLE001 - what One cannot do, it cannot do with either
        return repr(error)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_dictionaries_of_ids_change_no_answer(one, root, tmp_path, query):
    expected = ask(query, plain_copy(root, tmp_path), root)
    assert ask(query, one, root) == expected
    assert "Error(" not in expected


def test_eids_are_no_categories_in_one(one):
    # One.search(subject=..., datasets=...) fails under pandas 2 where they are.
    assert not isinstance(one._cache["datasets"].index.levels[0].dtype, pd.CategoricalDtype)
    assert not any(eid.int == 0 for eid in one._cache["datasets"].index.levels[0])


def test_what_one_saves_is_taken_over(tmp_path):
    root = make_ibl_tree(tmp_path)
    with program(root) as made:
        made.make_tables()
        before = listed(root, root)
        one = One(cache_dir=root, mode="local")
        eid = one.path2eid(root / REVISED)
        record = one.list_datasets(eid, details=True, keep_eid_index=True).iloc[[0]].copy()
        record["qc"] = pd.Categorical(["FAIL"], dtype=record["qc"].dtype)
        merge_tables(one._cache, datasets=record)
        one.save_cache()
        made.run_once()
        assert listed(root, root) == before
        again = One(cache_dir=root, mode="local").list_datasets(eid, details=True)
        assert again.index.tolist() == one.list_datasets(eid, details=True).index.tolist()
        assert again.loc[record.index.get_level_values("id")[0], "qc"] == "FAIL"
