"""What a run finds in its output folder: ids and columns that it overlooks there are lost at the first flush."""

import datetime
import errno
import os
import uuid
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.grammar import parse_session
from alfwatchd.alf.ids import NAMESPACE
from alfwatchd.errors import ConfigError, OutDirError, StateError
from alfwatchd.store import earlier_tables
from alfwatchd.store.earlier_tables import EarlierSessions, follow_from_disk, gather, read_earlier, rows_here
from alfwatchd.store.layout import LAYOUT
from alfwatchd.store.notes_file import NAME, Notes
from alfwatchd.store.reader import read_generation
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.earlier import NOTHING_EARLIER, EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.notes import Note
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.database import dataset, session, write_database
from kit.rows import datasets_of, earlier, folder_rows, sessions_of

PATH, LAB_PATH = "s/2020-01-01/001", "lab/Subjects/s/2020-01-01/001"
EID, OWN = (uuid.UUID(int=number, version=4).bytes for number in (1, 2))
EARLIER = earlier({PATH: EarlierSession(EID, "", "")}, {PATH: {"alf/a.b.c": EarlierDataset(OWN, 3)}})


def write(top, rules=TableRules(), root="/root"):  # noqa: B008 - frozen
    (top / "state").mkdir(exist_ok=True)
    rows = Session(PATH, (folder_rows("alf", {"a.b.c": pack_signature(7, 1, 2, False)}),))
    writer = TableWriter(top, str(root), top / "state" / LAYOUT)
    writer.write(Snapshot(1, {PATH: rows}), rules)
    writer.close()
    return read_generation(top)[1]


def carry(top, notes=None, **more):
    tables = read_earlier(top)
    return gather(tables, NAMESPACE, "", notes, tables.sessions, lambda: None, **more)


def test_tables_that_follow_from_the_disk_are_not_read(tmp_path):
    metadata = write(tmp_path)
    layout = tmp_path / "state" / LAYOUT
    assert follow_from_disk(tmp_path, metadata, NAMESPACE, "", "", layout)
    assert follow_from_disk(tmp_path, metadata, NAMESPACE, "", "", None)
    assert carry(tmp_path) == NOTHING_EARLIER


@pytest.mark.parametrize(
    ("namespace", "lab", "adopted"), [(uuid.UUID(int=7), "", ""), (NAMESPACE, "lab", ""), (NAMESPACE, "", "digest")]
)
def test_tables_of_other_settings_are_read(tmp_path, namespace, lab, adopted):
    assert not follow_from_disk(tmp_path, write(tmp_path), namespace, lab, adopted, None)


def test_tables_that_another_program_changed_are_read_though_they_bear_our_metadata(tmp_path):
    metadata = write(tmp_path)
    table = pq.read_table(tmp_path / SESSIONS)
    place = table.schema.get_field_index("projects")
    pq.write_table(table.set_column(place, "projects", pa.array(["p"])), tmp_path / SESSIONS)
    assert not follow_from_disk(tmp_path, metadata, NAMESPACE, "", "", tmp_path / "state" / LAYOUT)
    assert carry(tmp_path).sessions == {PATH: EarlierSession(None, "", "p")}


def test_ids_and_qc_are_carried_over(tmp_path):
    assert not follow_from_disk(
        tmp_path, write(tmp_path, TableRules(known=KnownColumns.of(EARLIER))), NAMESPACE, "", "", None
    )
    assert carry(tmp_path) == EARLIER


def test_tables_of_an_alyx_under_pandas_3_keep_their_ids(tmp_path):
    """Alyx has "#nan#" there for no revision: nothing of such tables in the output folder was carried over."""
    of_session = session(LAB_PATH)
    paths = ["alf/#nan#/a.b.c", "alf/#r#/a.b.c", "alf/#nan#/d.e.f", None]
    rows = [dataset(of_session["id"], path, qc="FAIL") for path in paths]
    write_database(tmp_path, [of_session], rows)
    own_ids = [uuid.UUID(row["id"]).bytes for row in rows]
    assert carry(tmp_path).datasets[f"lab/{PATH}"] == {
        "alf/a.b.c": EarlierDataset(own_ids[0], 3),
        "alf/#r#/a.b.c": EarlierDataset(own_ids[1], 3),
        "alf/d.e.f": EarlierDataset(own_ids[2], 3),
    }
    assert [path for _, path, *_ in rows_here(tmp_path, "") if path] == ["alf/a.b.c", "alf/#r#/a.b.c", "alf/d.e.f"]


def test_a_revision_folder_that_is_named_so_stays_in_our_own_tables(tmp_path):
    known = earlier({}, {PATH: {"alf/#nan#/a.b.c": EarlierDataset(OWN, 3)}})
    rows = Session(PATH, (folder_rows("alf/#nan#", {"a.b.c": pack_signature(7, 1, 2, False)}),))
    (tmp_path / "state").mkdir()
    writer = TableWriter(tmp_path, "/root", tmp_path / "state" / LAYOUT)
    writer.write(Snapshot(1, {PATH: rows}), TableRules(known=KnownColumns.of(known)))
    writer.close()
    assert carry(tmp_path) == known


def test_of_damaged_datasets_the_sessions_are_left(tmp_path, caplog):
    write(tmp_path, TableRules(known=KnownColumns.of(EARLIER)))
    (tmp_path / DATASETS).write_bytes(b"damaged")
    assert carry(tmp_path) == earlier(EARLIER.sessions)
    assert "is lost" in caplog.text
    assert read_earlier(tmp_path / "nowhere") is None


def test_a_table_that_cannot_be_read_now_is_not_replaced(tmp_path, monkeypatch):
    write(tmp_path)
    earlier_tables.require_readable(tmp_path)
    real = type(tmp_path).open

    def refuse(path, *arguments, **more):
        if path.name == DATASETS:
            raise PermissionError(13, os.strerror(13), str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(OutDirError, match="make it readable, or remove it"):
        earlier_tables.require_readable(tmp_path)


@pytest.mark.parametrize("fails", [False, True])
def test_a_root_that_cannot_be_looked_at_is_no_other_root(tmp_path, monkeypatch, fails):
    """A disk that fails now and then: the daemon refused its own tables, as those of another root of the same path."""
    root, other, out_dir = (tmp_path / name for name in ("root", "other", "out"))
    for folder in (root / "lab", other / "lab", out_dir):
        folder.mkdir(parents=True)
    write(out_dir, root=other)
    samefile = Path.samefile

    def fail(path, of):
        if fails:
            raise OSError(errno.EIO, "Input/output error")
        return samefile(path, of)

    monkeypatch.setattr(Path, "samefile", fail)
    with nullcontext() if fails else pytest.raises(ConfigError, match="tables of another root"):
        earlier_tables.require_same_root(out_dir, root)
    earlier_tables.require_same_root(out_dir, other)


def test_what_was_noted_of_rows_that_went_is_carried_over_too(tmp_path):
    write(tmp_path, TableRules(known=KnownColumns.of(EARLIER)))
    notes = Notes(tmp_path / "state")
    lost = {"d.e.f": EarlierDataset(None, 4)}
    notes.add(
        [
            Note(PATH, "", EarlierSession(None, "old", ""), lost),
            Note("t/2020-01-01/001", "", EARLIER.sessions[PATH], {}),
        ]
    )
    found = carry(tmp_path, Notes(tmp_path / "state"))
    assert found.sessions == {**EARLIER.sessions, "t/2020-01-01/001": EarlierSession(None, "", "")}, "its eid is taken"
    assert found.datasets == {PATH: {**EARLIER.datasets[PATH], **lost}}


def test_notes_that_cannot_be_read_now_stop_the_run(tmp_path):
    write(tmp_path)
    (tmp_path / "state" / NAME).mkdir()
    with pytest.raises(StateError, match="make it readable"):
        carry(tmp_path, Notes(tmp_path / "state"))


def test_rows_are_given_with_all_paths_that_they_may_have(tmp_path):
    pq.write_table(sessions_of({"id": "e", "lab": "lab"}), tmp_path / SESSIONS)
    pq.write_table(datasets_of({"eid": "e", "hash": "00" * 16}), tmp_path / DATASETS)
    rows = list(rows_here(tmp_path, "lab"))
    assert [row[1:] for row in rows] == [("", None, b""), ("a.b.c", 7, bytes(16))]
    for spelled, *_ in rows:
        assert {PATH, LAB_PATH, "s/2020-01-01/1", "lab/Subjects/s/2020-01-01/01"} <= {*spelled}
    assert [len(row[0]) for row in rows_here(tmp_path, "other")] == [3, 3], "it lies in the folder of its lab"
    assert list(rows_here(tmp_path / "nowhere", "")) == []


def test_known_sessions_are_told_with_their_inodes():
    date = datetime.date(2021, 1, 1)
    table = sessions_of({"lab": "lab"}, {"lab": "other", "date": date, "number": 2}, {"number": None})
    known = EarlierSessions(table, "lab", {PATH: 5})
    first, second = known
    assert (len(known), first.ino, second.ino) == (2, 5, 0)
    assert first in known
    assert second.spellings[0] == "other/Subjects/s/2021-01-01/002"
    keys = {parse_session(path).eid_path for path in (PATH, LAB_PATH, second.spellings[0])}
    assert known.eid_paths() == keys
