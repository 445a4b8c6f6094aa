"""The thread that looks at the source: what it tells the engine, and when it looks again."""

import queue
import uuid

import pytest

from alfwatchd.database import adopter
from alfwatchd.database.adopter import Adopter
from alfwatchd.settings import Adopt
from alfwatchd.tables.earlier import EarlierDataset, EarlierSession
from kit.database import dataset, session, write_database
from kit.rows import earlier

PATIENCE = 120.0
PATH, KEY, TIMES = "lab/Subjects/s1/2020-01-01/001", "lab/s1/2020-01-01/001", "alf/spikes.times.npy"


@pytest.fixture
def start(tmp_path):
    """Begin to look at a source that is looked at once a day."""
    begun = []

    def begin(before):
        told = queue.Queue()
        begun.append(
            Adopter(Adopt(source=str(tmp_path / "source"), interval_seconds=86400), tmp_path, before, told.put)
        )
        return told

    yield begin
    for each in begun:
        each.close()


def test_a_source_that_cannot_be_read_is_looked_at_again_before_long(start, tmp_path, monkeypatch):
    monkeypatch.setattr(adopter, "RETRY_SECONDS", 0.05)
    told = start(earlier({}, {}))
    assert "is not there" in told.get(timeout=PATIENCE).error
    write_database(tmp_path / "source", [session(PATH)], [])
    message = told.get(timeout=PATIENCE)
    while message.known is None:
        message = told.get(timeout=PATIENCE)
    assert [*message.known.adoption.sessions] == [KEY]


def test_what_is_left_of_earlier_tables_comes_with_what_is_adopted(start, tmp_path):
    # It takes the engine no time.
    one = session(PATH)
    write_database(tmp_path / "source", [one], [dataset(one["id"], TIMES)])
    old = uuid.uuid4().bytes
    told = start(
        earlier(
            {KEY: EarlierSession(old, "", ""), "other": EarlierSession(old, "", "")},
            {KEY: {TIMES: EarlierDataset(old, 1), "x.y.z": EarlierDataset(old, 1)}},
        )
    )
    left = told.get(timeout=PATIENCE).known.rest
    assert ([*left.sessions], left.datasets) == (["other"], {KEY: {"x.y.z": EarlierDataset(old, 1)}})
