"""One look at a database: what cannot be read must change no id that was adopted before."""

import shutil

from alfwatchd.database.look import NOTHING_READ, find_problems, look, recall
from alfwatchd.settings import Adopt
from alfwatchd.tables.mismatches import Mismatches
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.database import dataset, session, write_database

PATH, KEY = "lab/Subjects/s1/2020-01-01/001", "lab/s1/2020-01-01/001"


def make(folder):
    one = session(PATH)
    write_database(folder, [one], [dataset(one["id"], "alf/a.b.c")])
    return Adopt(source=str(folder))


def test_a_source_is_read_once_and_again_only_when_it_has_changed(tmp_path):
    settings = make(tmp_path / "source")
    first = look(settings, tmp_path)
    assert ([*first.adoption.sessions], first.error) == ([KEY], "")
    assert look(settings, tmp_path, first.adoption) == NOTHING_READ
    make(tmp_path / "source")
    assert look(settings, tmp_path, first.adoption).adoption.digest != first.adoption.digest


def test_the_same_in_other_words_changes_nothing(tmp_path):
    # Alyx joins the projects of a session in another order at each run.
    one = session(PATH, projects="a,b")
    rows = [dataset(one["id"], "alf/a.b.c")]
    settings = Adopt(source=str(write_database(tmp_path / "source", [one], rows)))
    before = look(settings, tmp_path).adoption
    assert before.sessions[KEY].projects == "a,b"
    write_database(tmp_path / "source", [one | {"projects": "b,a"}], rows)
    assert look(settings, tmp_path, before) == NOTHING_READ
    assert look(settings, tmp_path).adoption.digest == before.digest


def test_a_source_that_is_away_leaves_what_was_adopted(tmp_path):
    settings = make(tmp_path / "source")
    before = look(settings, tmp_path).adoption
    shutil.rmtree(tmp_path / "source")
    running = look(settings, tmp_path, before)
    assert running.adoption is None
    assert "is not there" in running.error
    restarted = look(settings, tmp_path)
    assert restarted.adoption.digest == before.digest
    assert "is not there" in restarted.error
    assert recall(settings, tmp_path).digest == before.digest


def test_a_copy_that_is_damaged_is_read_from_the_source_again(tmp_path):
    settings = make(tmp_path / "source")
    before = look(settings, tmp_path).adoption
    (copy,) = tmp_path.rglob("datasets.parquet")
    copy.write_bytes(b"damaged")
    assert recall(settings, tmp_path) is None
    assert look(settings, tmp_path).adoption.digest == before.digest


def test_what_a_person_should_act_on_is_told(tmp_path):
    adoption = look(make(tmp_path / "source"), tmp_path).adoption
    here = Snapshot(1, {"s1/2020-01-01/001": Session("s1/2020-01-01/001")})
    found = find_problems("away", Mismatches(adoption), here, "other")
    assert [each.kind for each in found] == ["adopt_source", "adopt_lab"]
    assert find_problems("", Mismatches(adoption), here, "lab") == []
    assert find_problems("", None, here, "") == []
