"""Where `make_parquet_db` differs from ONE-api's on purpose; docs/reference/upstream.md explains each name."""

import contextlib
import os
import re
import shutil
import warnings

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from iblutil.io import parquet
from one.alf.cache import QC_TYPE
from one.alf.exceptions import ALFError
from pandas.testing import assert_frame_equal

from alfwatchd.errors import ConfigError, LabConflict, Locked, OutDirError, RootOffline, TablesError
from alfwatchd.service.locks import hold_out_dir
from kit.upstream import (
    OURS,
    S1,
    S2,
    SPIKES,
    THEIRS,
    by_path,
    files,
    folder_of_nobody,
    make,
    open_one,
    plant,
    tables,
    write,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_readers")

differs = pytest.mark.differs


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


JUNK = [
    "._spikes.times.npy",  # macOS
    ".spikes.times.npy.swp",
    "spikes.times.npy~",
    "spikes.times.npy (1)",
    "a.b-c.npy",
    "notes of today.2020.txt",
    "caf\udce9.times.npy",
]


@differs("files that are no datasets")
@pytest.mark.parametrize("name", JUNK)
def test_a_name_with_two_dots_is_not_yet_a_dataset(root, name):
    write(root, f"{S1}/{SPIKES}", f"{S1}/alf/{name}")
    (_, datasets, _), theirs = tables(make(OURS, root)), make(THEIRS, root)
    assert list(datasets["rel_path"]) == [SPIKES]
    assert open_one(root, root.parent / "alfwatchd").list_datasets() == [SPIKES]
    assert tables(theirs)[1]["rel_path"].isna().sum() == 1  # "nan" is its id
    with pytest.raises(ValueError, match="badly formed hexadecimal UUID string"):
        open_one(root, theirs)


@differs("files that are no datasets")
def test_a_fifo_is_no_dataset(root):
    write(root, f"{S1}/{SPIKES}")
    os.mkfifo(root / S1 / "a.b.fifo")
    assert by_path(make(OURS, root))["lab/s/2020-01-01/001"] == {SPIKES}
    assert by_path(make(OURS, root, hash_files=True))["lab/s/2020-01-01/001"] == {SPIKES}  # theirs would hang
    assert by_path(make(THEIRS, root))["lab/s/2020-01-01/001"] == {SPIKES, "a.b.fifo"}


@differs("folders that are no collections")
@pytest.mark.parametrize("folder", ["old analysis", "alf (1)", "a+b", "alf/#r#/deeper", "#r#/alf", "alf/#r1#/#r2#"])
def test_a_folder_outside_the_grammar_is_left_out_and_reported(root, caplog, folder):
    write(root, f"{S1}/{SPIKES}", f"{S1}/{folder}/a.b.npy")
    assert by_path(make(OURS, root))["lab/s/2020-01-01/001"] == {SPIKES}
    assert "1 dataset not indexed: ONE cannot open a collection of this name" in caplog.text
    cut = [path for path in tables(make(THEIRS, root))[1]["rel_path"] if path != SPIKES]
    assert not (root / S1 / cut[0]).exists()


@differs("sessions without datasets")
def test_an_empty_session_keeps_its_row(root):
    write(root, f"{S1}/{SPIKES}", f"{S2}/")
    out_dir = make(OURS, root)
    assert by_path(out_dir) == {"lab/s/2020-01-01/001": {SPIKES}, "lab/s/2020-01-02/001": set()}
    assert len(open_one(root, out_dir).search()) == 2
    with pytest.raises(AssertionError, match="session int ID mismatch"):
        make(THEIRS, root)


ODD = {
    "s/2020-02-30/001/a.b.c": ValueError,
    "s/0000-01-01/001/a.b.c": NotImplementedError,
    "s/2020-01-01/002\n/a.b.c": ValueError,
    f"{S1}/.#a.b.c -> user@host.1234": FileNotFoundError,  # the lock file of an editor
    f"{S1}/loop.b.c -> loop.b.c": OSError,
}


@differs("odd entries")
@pytest.mark.parametrize(("path", "error"), ODD.items())
def test_an_odd_entry_does_not_stop_all(root, path, error):
    plant(root, [f"{S1}/{SPIKES}", path])
    out_dir = make(OURS, root)
    assert by_path(out_dir) == {"lab/s/2020-01-01/001": {SPIKES}}
    with pytest.raises(error):
        make(THEIRS, root)
    assert not (root.parent / "one/sessions.pqt").exists()


OTHER_LAYOUTS = {
    "my-lab/Subjects/s/2020-01-01/001": ("lab/s/2020-01-01/001", "a lab name may hold letters"),
    "my sub/2020-01-01/001": ("sub/2020-01-01/001", "a subject name may hold letters"),
    "lab/subjects/s/2020-01-01/001": ("s/2020-01-01/001", "must be called 'Subjects'"),
    "proj/s/2020-01-01/001": ("s/2020-01-01/001", "did you mean root = .../proj?"),
    "a/lab/Subjects/s/2020-01-01/001": ("lab/s/2020-01-01/001", "did you mean root = .../a?"),
    "Subjects/s/2020-01-01/001": ("root/s/2020-01-01/001", "the root is a lab folder"),
    "s/2020-01-01/٣": ("s/2020-01-01/003", None),  # digits of other scripts
    "s/２０２０-01-01/001": ("s/2020-01-01/001", "the date is not a valid yyyy-mm-dd"),
}


@differs("folders outside the layout")
@pytest.mark.parametrize(("path", "row", "hint"), [(path, *each) for path, each in OTHER_LAYOUTS.items()])
def test_what_one_could_not_open_is_no_session(root, caplog, path, row, hint):
    write(root, f"{path}/{SPIKES}")
    with pytest.warns(RuntimeWarning, match=f"^No sessions found in {re.escape(str(root))}") as caught:
        OURS.make(root)
    assert by_path(root) == {}
    for text in (str(caught[0].message), caplog.text) if hint else ():
        assert hint in text
    assert list(by_path(make(THEIRS, root))) == [row]
    api = open_one(root, root.parent / "one")
    with pytest.raises(ALFError):
        api.load_dataset(api.search()[0], SPIKES, download_only=True)


@differs("folders outside the layout")
def test_a_session_in_a_session_is_no_session(root):
    write(root, f"{S1}/alf/2020-02-02/003/a.b.c", f"{S1}/a.b.c")
    out_dir = make(OURS, root)
    assert by_path(out_dir) == {"lab/s/2020-01-01/001": {"alf/2020-02-02/003/a.b.c", "a.b.c"}}
    with pytest.raises(ValueError, match="Length of values"):
        make(THEIRS, root)
    assert len(tables(make(THEIRS, root, hash_ids=False))[1]) == 3  # of two files


@differs("folders above the root")
def test_where_the_root_lies_does_not_matter(tmp_path):
    root = tmp_path / "backup/2019-01-01/7/data"
    write(root, f"{S1}/{SPIKES}")
    assert by_path(make(OURS, root)) == {"lab/s/2020-01-01/001": {SPIKES}}
    sessions, datasets, _ = tables(make(THEIRS, root, hash_ids=False))
    assert list(sessions["subject"]) != ["s"]
    assert not (root / S1 / datasets["rel_path"][0]).exists()


TOO_LOW = {
    "": None,
    "lab": "1 session not indexed: the root is a lab folder: make the folder that holds the labs the root",
    "lab/Subjects": None,  # a tree without lab folders
    "lab/Subjects/s": "1 session not indexed: the root is a subject folder: make the folder that holds the subjects or "
    "labs the root",
    "lab/Subjects/s/2020-01-01": "it lies in a subject folder; did you mean {root}?",
    S1: "it lies in a subject folder; did you mean {root}?",
    f"{S1}/alf": "it lies in a subject folder; did you mean {root}?",
}


@differs("folders above the root")
@pytest.mark.parametrize(("top", "hint"), TOO_LOW.items())
def test_a_root_that_is_set_too_low_is_recognised(root, top, hint):
    write(root, f"{S1}/{SPIKES}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        OURS.make(root / top, root.parent)
    assert len(by_path(root.parent)) == (hint is None)
    assert [str(each.message) for each in caught] == (
        [f"No sessions found in {root / top}: " + hint.format(root=root)] if hint else []
    )


@differs("two spellings of a number")
def test_one_row_for_1_and_001(root, caplog):
    write(root, "s/2020-01-01/1/a.b.c", "s/2020-01-01/001/d.e.f")
    assert by_path(make(OURS, root)) == {"s/2020-01-01/001": {"d.e.f"}}
    assert "the same session as s/2020-01-01/001, which ONE opens instead" in caplog.text
    assert len(tables(make(THEIRS, root))[0]) == 2


@differs("ids")
def test_ids_never_change(root):
    write(root, f"{S1}/{SPIKES}", f"{S2}/{SPIKES}")
    other = root.parent / "elsewhere" / "copy"
    shutil.copytree(root, other)
    ours = [tables(make(OURS, each))[1].index for each in (root, root, other)]
    assert list(ours[0]) == list(ours[1]) == list(ours[2])
    theirs = [tables(make(THEIRS, each))[1].index for each in (root, root)]
    assert not set(theirs[0]) & set(theirs[1])


@differs("ids")
def test_no_two_datasets_share_an_id(root):
    write(root, f"{S1}/{SPIKES}", f"{S2}/{SPIKES}")
    ours, theirs = (tables(make(side, root))[1] for side in (OURS, THEIRS))
    assert ours.index.get_level_values("id").nunique() == 2
    assert theirs.index.get_level_values("id").nunique() == 1


@differs("what earlier tables knew")
@pytest.mark.parametrize("hash_ids", [False, True])
def test_ids_and_notes_of_earlier_tables_are_kept(root, hash_ids):
    write(root, f"{S1}/{SPIKES}", f"{S2}/{SPIKES}")
    THEIRS.make(root)
    sessions, datasets, metadata = tables(root)
    sessions["task_protocol"], sessions["projects"] = "_iblrig_task", "project"
    datasets["qc"] = pd.Categorical(["PASS", "FAIL"], dtype=QC_TYPE)
    for name, frame in (("sessions", sessions), ("datasets", datasets)):
        parquet.save(root / f"{name}.pqt", frame, metadata)
    shutil.copytree(root, root.parent / "again")
    OURS.make(root, hash_ids=hash_ids)
    now = tables(root)
    assert set(now[0]["projects"]) == {"project"}
    assert set(now[0]["task_protocol"]) == {"_iblrig_task"}
    assert sorted(now[1]["qc"]) == sorted(datasets["qc"])
    if hash_ids:
        assert list(now[0].index) == list(sessions.index)
        # their dataset ids are not unique, so they are not kept
        assert dict(zip(now[1].index.get_level_values("eid"), now[1]["qc"], strict=True)) == dict(
            zip(datasets.index.get_level_values("eid"), datasets["qc"], strict=True)
        )
        OURS.make(root)
        assert_frame_equal(tables(root)[1], now[1])
    THEIRS.make(root.parent / "again")
    assert set(tables(root.parent / "again")[0]["projects"]) == {""}


def test_a_hash_is_always_made_of_the_file(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root, hash_files=True)
    sessions, datasets, metadata = tables(root)
    right = list(datasets["hash"])
    datasets["hash"] = "1" * 32
    parquet.save(root / "datasets.pqt", datasets, metadata)
    parquet.save(root / "sessions.pqt", sessions, metadata)
    OURS.make(root, hash_files=True)
    assert list(tables(root)[1]["hash"]) == right
    (root / S1 / SPIKES).write_text("new content")
    OURS.make(root, hash_files=True)
    assert list(tables(root)[1]["hash"]) == ["96c15c2bb2921193bf290df8cd85e2ba"]  # pragma: allowlist secret


@differs("hash")
def test_no_hash_is_null(root):
    write(root, f"{S1}/{SPIKES}")
    assert pq.read_schema(make(OURS, root) / "datasets.pqt").field("hash").type == pa.null()
    assert list(tables(make(THEIRS, root))[1]["hash"]) == [""]


@differs("default_revision")
def test_default_revision(root):
    write(root, f"{S1}/a.b.c", f"{S1}/#2020-01-01#/a.b.c", f"{S1}/#2021-01-01#/a.b.c")
    ours, theirs = (tables(make(side, root))[1] for side in (OURS, THEIRS))
    assert list(ours["rel_path"][ours["default_revision"]]) == ["#2021-01-01#/a.b.c"]
    assert "default_revision" not in theirs


@differs("the way files are written")
@pytest.mark.parametrize("hash_ids", [False, True])
def test_files_are_replaced_not_rewritten(root, hash_ids):
    write(root, f"{S1}/{SPIKES}")
    kept = {}
    for side in (OURS, THEIRS):
        out_dir = make(side, root, hash_ids=hash_ids)
        with contextlib.ExitStack() as stack:
            reading = [stack.enter_context((out_dir / f"{name}.pqt").open("rb")) for name in ("sessions", "datasets")]
            make(side, root, hash_ids=hash_ids)
            kept[side.name] = [os.fstat(file.fileno()).st_nlink == 0 for file in reading]
        assert {path.name for path in out_dir.iterdir()} - {".alfwatchd.lock"} == {
            "sessions.pqt",
            "datasets.pqt",
        }
    assert kept == {"alfwatchd": [True, True], "one": [False, False]}  # who reads goes on with what was there


@differs("the way files are written")
def test_it_keeps_out_of_a_daemons_way(root):
    write(root, f"{S1}/{SPIKES}")
    with hold_out_dir(root):  # as a daemon does
        before = files(root)
        with pytest.raises(Locked, match=f"process {os.getpid()} "):
            OURS.make(root)
        assert files(root) == before
        THEIRS.make(root)
    OURS.make(root)
    assert by_path(root) == {"lab/s/2020-01-01/001": {SPIKES}}


@differs("the way files are written")
@pytest.mark.parametrize("hash_ids", [False, True])
def test_a_table_that_cannot_be_written_is_a_clear_error(root, hash_ids):
    write(root, f"{S1}/{SPIKES}", "datasets.pqt/in the way")
    with pytest.raises(TablesError, match=r"datasets\.pqt"):
        OURS.make(root, hash_ids=hash_ids)


@differs("lab")
def test_a_lab_that_the_folder_has_anyway_is_fine(root):
    write(root, f"{S1}/{SPIKES}")
    assert set(tables(make(OURS, root, lab="lab"))[0]["lab"]) == {"lab"}
    write(root, "same/Subjects/s/2020-01-01/001/a.b.c")
    shutil.rmtree(root / "lab")
    assert set(tables(make(OURS, root, lab="same"))[0]["lab"]) == {"same"}
    with pytest.raises(AssertionError, match="lab name conflict"):
        make(THEIRS, root, lab="same")


@differs("lab")
def test_a_lab_folder_that_is_called_lab_is_not_overruled(root):
    write(root, f"{S1}/{SPIKES}")
    with pytest.raises(LabConflict, match=r"lab = 'another', but there are lab folders lab; a folder's own lab wins"):
        make(OURS, root, lab="another")
    assert set(tables(make(THEIRS, root, lab="another"))[0]["lab"]) == {"another"}


@differs("lab")
def test_it_says_where_one_will_look(root, caplog):
    write(root, "s/2020-01-01/001/a.b.c")
    make(OURS, root, lab="mylab")
    assert "One looks for their files below mylab/Subjects/" in caplog.text


@differs("lab")
def test_a_lab_that_no_folder_could_have(root):
    write(root, "s/2020-01-01/001/a.b.c")
    with pytest.raises(ConfigError, match="should hold letters, digits and '_' only"):
        make(OURS, root, lab="my lab")
    assert set(tables(make(THEIRS, root, lab="my lab"))[0]["lab"]) == {"my lab"}


@differs("empty tables")
def test_one_answers_from_empty_tables(root):
    ours, theirs = (open_one(root, make(side, root)) for side in (OURS, THEIRS))
    assert len(ours.list_datasets()) == len(ours.search()) == 0
    with pytest.raises(TypeError):
        theirs.list_datasets()


@differs("a root that is gone")
@pytest.mark.parametrize("state", ["missing", "empty", "a file"])
def test_tables_elsewhere_are_not_emptied(root, state):
    write(root, f"{S1}/{SPIKES}")
    ours, _ = (make(side, root) for side in (OURS, THEIRS))
    shutil.rmtree(root)
    if state == "a file":
        root.write_text("")
    elif state == "empty":  # as a folder where nothing is mounted
        write(root, "lost+found.txt")
    with pytest.raises(RootOffline, match="they were left as they are: mount it, or remove the tables"):
        make(OURS, root)
    assert len(by_path(ours)) == 1
    assert by_path(make(THEIRS, root)) == {}
    for name in ("sessions", "datasets"):
        (ours / f"{name}.pqt").unlink()
    assert by_path(make(OURS, root)) == {}


@differs("a root that is gone")
def test_tables_in_the_root_prove_that_it_is_there(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    shutil.rmtree(root / "lab")
    with pytest.warns(RuntimeWarning, match="^No sessions found"):
        OURS.make(root)
    assert by_path(root) == {}


@differs("a root that is gone")
def test_a_missing_root_that_should_hold_the_tables(root):
    with pytest.raises(OutDirError, match=r"nowhere: the folder to index.*does not exist; check its path"):
        OURS.make(root / "nowhere")


@differs("what cannot be read")
def test_rows_that_cannot_be_read_are_kept(caplog):
    with folder_of_nobody() as nobody:
        root = nobody.root
        with nobody.become():
            write(root, f"{S1}/{SPIKES}", f"{S2}/{SPIKES}")
            OURS.make(root)
        before = by_path(root)
        os.chown(root / S2 / "alf", 0, 0)
        (root / S2 / "alf").chmod(0)
        with nobody.become():
            OURS.make(root)
            assert by_path(root) == before
            assert "last known rows are kept; make it readable" in caplog.text
            THEIRS.make(root, hash_ids=False)
            assert by_path(root) == {"lab/s/2020-01-01/001": {SPIKES}, "lab/s/2020-01-02/001": set()}


@differs("what cannot be read")
def test_a_file_that_cannot_be_read_has_no_hash():
    with folder_of_nobody() as nobody:
        secret = nobody.root / S1 / "alf/secret.times.npy"
        with nobody.become():
            write(nobody.root, f"{S1}/{SPIKES}", f"{S1}/alf/secret.times.npy")
        os.chown(secret, 0, 0)
        secret.chmod(0o600)
        with nobody.become():
            OURS.make(nobody.root, hash_files=True)
            found = tables(nobody.root)[1].set_index("rel_path")["hash"]
            assert found[[SPIKES, "alf/secret.times.npy"]].isna().tolist() == [False, True]
            with pytest.raises(PermissionError):
                THEIRS.make(nobody.root, hash_files=True)
