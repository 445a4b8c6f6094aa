"""A reference is as old as it can be: what was recorded after it must stay."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd import make_parquet_db
from alfwatchd.errors import PruneRefused
from alfwatchd.prune.reference_files import read_date, read_reference

LONG_AGO = datetime(2021, 5, 6, 7, 8, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "reference"
    (root / "s/2020-01-01/001").mkdir(parents=True)
    (root / "s/2020-01-01/001/a.b.c").write_text("content")
    folder.mkdir()
    make_parquet_db(root, folder)
    return folder


def change(path, own=None, **one_metadata):
    """Change what a table tells of itself; None removes it."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    for key, changes in ((b"alfwatchd", own or {}), (b"one_metadata", one_metadata)):
        found = json.loads(metadata.get(key, b"{}")) | changes
        metadata[key] = json.dumps({name: value for name, value in found.items() if value is not None}).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def change_both(folder, own=None, **one_metadata):
    for name in ("sessions", "datasets"):
        change(folder / f"{name}.pqt", own, **one_metadata)


def set_times(folder, sessions, datasets):
    for name, time in (("sessions", sessions), ("datasets", datasets)):
        os.utime(folder / f"{name}.pqt", times=(time.timestamp(), time.timestamp()))


def test_our_own_tables_tell_when_their_walk_began(folder):
    before = datetime.now(UTC) - timedelta(seconds=60)
    origin = read_reference(folder).origin
    metadata = json.loads(pq.read_metadata(folder / "datasets.pqt").metadata[b"alfwatchd"])
    assert datetime.fromisoformat(metadata["written_at"]).utcoffset() == timedelta(0)
    assert before <= datetime.fromisoformat(metadata["written_at"]) <= datetime.now(UTC)
    assert (origin.source, origin.generation) == (str(folder), metadata["generation"])
    assert read_date(folder) == origin


NOW = datetime(2023, 1, 1, 12, 0, tzinfo=UTC)
DATES = [
    # story, own, date_created, times of the two files, date of the reference
    ("the older file", None, None, (NOW, LONG_AGO), LONG_AGO),
    ("the other way round", None, None, (LONG_AGO, NOW), LONG_AGO),
    ("the earliest clock of the world", None, "2021-05-06 07:08", (NOW, NOW), LONG_AGO - timedelta(hours=14)),
    ("a date with a zone", None, "2021-05-06 07:08+02:00", (NOW, NOW), LONG_AGO - timedelta(hours=2)),
    ("both of one time", {"written_at": "2021-05-06T07:08:00+00:00"}, "2021-05-06 09:08", (NOW, NOW), LONG_AGO),
    (
        "date_created is older",
        {"written_at": "2022-05-06T07:08:00+00:00"},
        "2021-05-06 07:08",
        (NOW, NOW),
        LONG_AGO - timedelta(hours=14),
    ),
    ("in UTC", {"written_at": "2021-05-06T07:08:00+00:00"}, "2022-01-01 00:00", (NOW, NOW), LONG_AGO),
    ("nonsense", {"written_at": 7}, "yesterday", (NOW, NOW), NOW),
    ("the last year", None, "9999-12-31 23:59", (NOW, NOW), NOW),
    ("the first year", None, "0001-01-01 00:00", (NOW, NOW), NOW),
]


@pytest.mark.parametrize(("own", "created", "times", "date"), [case[1:] for case in DATES], ids=[c[0] for c in DATES])
def test_a_reference_is_as_old_as_it_can_be(folder, own, created, times, date):
    change_both(folder, {"written_at": None} | (own or {}), date_created=created)
    set_times(folder, *times)
    assert read_reference(folder).origin.date == read_date(folder).date == date


def test_the_date_does_not_depend_on_the_zone_of_this_process(folder, monkeypatch):
    change_both(folder, {"written_at": None}, date_created="2021-05-06 07:08")
    for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        assert read_reference(folder).origin.date == LONG_AGO - timedelta(hours=14)
    assert LONG_AGO.astimezone(timezone(timedelta(hours=14))).hour == 21


TORN = {
    "generations": lambda folder: change(folder / "sessions.pqt", {"generation": 99}),
    "a generation of no pair": lambda folder: change(folder / "sessions.pqt", {"generation": 0}),
    "dates": lambda folder: change(folder / "datasets.pqt", date_created="2021-05-06 07:08"),
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
def test_a_torn_copy_is_refused(folder, tear):
    tear(folder)
    for read in (read_reference, read_date):
        with pytest.raises(PruneRefused, match="the two tables do not belong together"):
            read(folder)


def test_tables_of_which_one_does_not_tell_are_taken(folder):
    change(folder / "datasets.pqt", {"generation": None, "written_at": None}, date_created=None)
    assert read_reference(folder).origin.generation is None


def test_a_bomb_is_refused(folder):
    text = pa.DictionaryArray.from_arrays(np.zeros(3_000_000, np.int32), ["alf/spikes.times.npy"])
    pq.write_table(pa.table({"eid": text, "rel_path": text}), folder / "datasets.pqt")
    with pytest.raises(PruneRefused, match=r"datasets\.pqt: .* 3000000 rows, which do not fit"):
        read_reference(folder)


def test_what_is_no_table_is_refused(folder):
    (folder / "datasets.pqt").write_bytes(b"PAR1" * 10)
    for read in (read_reference, read_date):
        with pytest.raises(PruneRefused, match=r"datasets\.pqt"):
            read(folder)
    shutil.rmtree(folder)
    with pytest.raises(PruneRefused, match="no reference tables here"):
        read_reference(folder)
    assert read_date(folder) is None


def test_a_date_in_the_future_makes_nothing_older(folder):
    ahead = (datetime.now(UTC) + timedelta(days=3650)).timestamp()
    for name in ("sessions.pqt", "datasets.pqt"):
        os.utime(folder / name, (ahead, ahead))
    assert read_reference(folder).origin.date <= datetime.now(UTC)
