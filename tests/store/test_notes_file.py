"""The file of notes: nothing that was noted is lost by a kill, by damage beside it, or for want of room."""

import json
import os
import uuid
from dataclasses import replace

import pytest

from alfwatchd.store import notes_file as module
from alfwatchd.store.notes_file import NAME, Notes
from alfwatchd.tables.earlier import NO_DATASET, NO_SESSION, EarlierSession
from alfwatchd.tables.notes import Note

EID, OWN = uuid.UUID(int=1, version=4).bytes, uuid.UUID(int=2, version=4).bytes
FULL = Note(
    "lab/s/2020-01-01/001", "lab", EarlierSession(EID, "protocol é\n", "a,b"),
    {"alf/a.b.c": replace(NO_DATASET, id=OWN, qc=3), "d.e.f": replace(NO_DATASET, qc=1)},
)  # fmt: skip


def note(number, **more):
    return replace(FULL, key=f"s{number}/2020-01-01/001", **more)


def read(folder):
    return Notes(folder).load()


def test_what_was_noted_is_there_for_the_next_process(tmp_path):
    folder = tmp_path / "state"
    assert read(folder) == []
    Notes(folder).add([])
    assert not folder.exists()
    Notes(folder).add([FULL, note(2, datasets={})])
    assert read(folder) == [FULL, note(2, datasets={})]


def test_the_same_is_noted_once_and_news_are_added(tmp_path):
    notes = Notes(tmp_path)
    for _ in range(2):
        notes.add([FULL])
        notes = Notes(tmp_path)
        notes.load()
    news = {"g.h.i": replace(NO_DATASET, qc=2)}
    notes.add([replace(FULL, session=NO_SESSION, datasets={**FULL.datasets, **news})])
    assert read(tmp_path) == [FULL, replace(FULL, session=NO_SESSION, datasets=news)]
    notes.come_back([FULL.key])
    notes.add([FULL])
    assert read(tmp_path)[-1] == FULL, "its year begins anew"


def test_what_a_person_removed_is_noted_once_and_outlives_new_ids(tmp_path):
    notes = Notes(tmp_path)
    removed = Note(FULL.key, "lab", NO_SESSION, {"alf/a.b.c": NO_DATASET}, is_removed=True)
    for each in (FULL, removed, removed, FULL, removed):
        notes.add([each])
    assert [each.is_removed for each in read(tmp_path)] == [False, True, False, True]
    notes = Notes(tmp_path)
    notes.load()
    notes.add([removed])
    notes.forget_ids()
    assert [(each.is_removed, each.datasets.get("alf/a.b.c")) for each in read(tmp_path)][1::2] == [
        (True, NO_DATASET)
    ] * 2


@pytest.mark.parametrize("length", [1, 9, 50, -2, -1])
def test_a_line_that_was_cut_off_by_a_kill_costs_nothing_but_itself(tmp_path, length):
    Notes(tmp_path).add([note(1)])
    whole = (tmp_path / NAME).read_bytes()
    Notes(tmp_path).add([note(2)])
    second = (tmp_path / NAME).read_bytes()[len(whole) :]
    (tmp_path / NAME).write_bytes(whole + second[:length])
    Notes(tmp_path).add([note(3)])
    assert [each for each in read(tmp_path) if each.key != note(2).key] == [note(1), note(3)]


@pytest.mark.parametrize(
    "damage",
    [b"\0", b"\xff\xff", b"00000000 {}\n", b"[" * 100_000, b"\n\n", b"8" * 30],
    ids=lambda made: repr(made[:9]),
)
def test_damage_costs_only_the_lines_that_it_hit(tmp_path, damage, caplog):
    Notes(tmp_path).add([note(1), note(2), note(3)])
    content = (tmp_path / NAME).read_bytes()
    place = content.index(note(2).key.encode())
    (tmp_path / NAME).write_bytes(content[:place] + damage + content[place + len(damage) :][: len(content)])
    found = read(tmp_path)
    assert note(1) in found
    assert note(2) not in found
    assert note(3) in found or len(damage) > 1000
    assert "damaged notes" in caplog.text


def test_a_line_that_makes_no_sense_is_damaged(tmp_path):
    import zlib

    for content in ({}, [], {"session": 1}, {**json.loads(b'{"session": "s", "lab": "", "when": "x"}')}):
        packed = json.dumps(content).encode()
        with (tmp_path / NAME).open("ab") as file:
            file.write(b"%08x %b\n" % (zlib.crc32(packed), packed))
    Notes(tmp_path).add([FULL])
    assert read(tmp_path) == [FULL]


def test_a_year_later_it_is_forgotten(tmp_path, monkeypatch):
    Notes(tmp_path).add([FULL])
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 364 * 86400)
    assert read(tmp_path) == [FULL]
    monkeypatch.setattr(module.time, "time", lambda: now + 367 * 86400)
    assert read(tmp_path) == []


@pytest.mark.parametrize("most", ["MOST_BYTES", "MOST_DATASETS"])
def test_where_there_is_no_room_the_oldest_go_first(tmp_path, monkeypatch, most, caplog):
    monkeypatch.setattr(module, most, {"MOST_BYTES": 6000, "MOST_DATASETS": 40}[most])
    notes = Notes(tmp_path)
    for number in range(100):
        notes.add([note(number)])
        assert notes.load()[-1] == note(number)
    found = read(tmp_path)
    assert found == [note(number) for number in range(100 - len(found), 100)]
    assert 10 <= len(found) <= 30
    assert "the oldest are gone" in caplog.text
    assert (tmp_path / NAME).stat().st_size <= 6000 or most == "MOST_DATASETS"


def test_ids_can_be_forgotten_and_the_rest_stays(tmp_path):
    bare = Note("t/2020-01-01/001", "", EarlierSession(EID, "", ""), {"a.b.c": replace(NO_DATASET, id=OWN)})
    notes = Notes(tmp_path)
    notes.add([FULL, bare])
    notes.forget_ids()
    left = {"alf/a.b.c": replace(NO_DATASET, qc=3), "d.e.f": replace(NO_DATASET, qc=1)}
    assert read(tmp_path) == [replace(FULL, session=replace(FULL.session, eid=None), datasets=left)]
    Notes(tmp_path / "none").forget_ids()
    assert not (tmp_path / "none").exists()


def test_what_is_in_the_way_is_told_and_nothing_is_written_through_it(tmp_path):
    (tmp_path / "other").write_text("other")
    for make in (lambda path: path.symlink_to(tmp_path / "other"), os.mkfifo, os.mkdir):
        make(tmp_path / NAME)
        with pytest.raises(OSError, match=r"."):
            Notes(tmp_path).add([FULL])
        (tmp_path / NAME).rmdir() if (tmp_path / NAME).is_dir() else (tmp_path / NAME).unlink()
    assert (tmp_path / "other").read_text() == "other"
