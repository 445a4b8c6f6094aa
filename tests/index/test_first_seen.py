"""When sessions were first seen, over restarts, lost state and lost tables."""

import shutil

import pytest

from alfwatchd.api import SnapshotRequest
from alfwatchd.errors import StateError
from kit.engine import EngineBox
from kit.prune import LAB_S1, S1, S2, T1, write

UNPADDED = "s/2020-01-01/7"


@pytest.fixture
def box(tmp_path):
    write(tmp_path / "root", f"{S1}/a.b.c", f"{LAB_S1}/a.b.c", f"{UNPADDED}/a.b.c")
    made = EngineBox(tmp_path / "root")
    made.sync()
    yield made
    made.close()


def seen(box):
    return dict(box.answer(box.ask(SnapshotRequest)).first_seen)


def restart(box):
    box.stop()
    box.start()
    box.now += 1000
    box.sync()


def test_what_was_there_at_the_first_start_is_not_new(box):
    assert seen(box) == {}
    restart(box)
    assert seen(box) == {}


def test_what_comes_while_the_daemon_runs_is_new_from_then_on(box):
    box.now += 500
    write(box.root, f"{S2}/a.b.c")
    box.sync()
    when = box.now
    assert seen(box) == pytest.approx({S2: when}, abs=5)
    write(box.root, f"{S2}/d.e.f")  # not the session, but a file of it
    box.now += 500
    box.sync()
    restart(box)
    assert seen(box) == pytest.approx({S2: when}, abs=5)


def test_what_came_while_it_did_not_run_is_new(box):
    box.stop()
    write(box.root, f"{S2}/a.b.c")
    box.start()
    box.now += 1000
    box.sync()
    assert seen(box).keys() == {S2}
    restart(box)
    assert seen(box).keys() == {S2}


def test_a_session_that_moves_is_new_where_it_is_now(box):
    (box.root / S1).rename(box.root / "s/2020-01-01/009")
    box.sync()
    assert seen(box).keys() == {"s/2020-01-01/009"}
    restart(box)
    assert seen(box).keys() == {"s/2020-01-01/009"}


def test_what_is_gone_is_forgotten_with_the_next_start(box):
    write(box.root, f"{S2}/a.b.c", f"{T1}/a.b.c")
    box.sync()
    shutil.rmtree(box.root / S2)
    restart(box)
    assert seen(box).keys() == box.state.load_first_seen().keys() == {T1}


def test_a_lost_state_makes_nothing_new_that_the_tables_know(box):
    write(box.root, f"{S2}/a.b.c")
    box.sync()
    box.run(100)
    box.stop()
    shutil.rmtree(box.state_dir)
    box.start()
    box.sync()
    assert seen(box) == {}


def test_lost_tables_make_nothing_new(box):
    box.run(100)
    box.stop()
    for name in ("sessions", "datasets"):
        (box.out_dir / f"{name}.pqt").unlink()
    box.start()
    box.sync()
    assert seen(box) == {}


def test_a_lab_that_the_setting_fills_in_makes_nothing_new(box):
    box.stop()
    box.new_settings = {"lab": "lab"}
    for _ in range(2):
        box.start()
        box.now += 1000
        box.sync()
        assert seen(box) == {}
        box.stop()
    box.start()


def test_a_state_that_cannot_be_written_now_is_written_later(box, monkeypatch):
    real = box.state.save_first_seen

    def fail(*_):
        raise StateError("disk full")

    monkeypatch.setattr(box.state, "save_first_seen", fail)
    write(box.root, f"{S2}/a.b.c")
    box.sync()
    assert seen(box).keys() == {S2}
    monkeypatch.setattr(box.state, "save_first_seen", real)
    write(box.root, f"{T1}/a.b.c")
    box.sync()
    assert box.state.load_first_seen().keys() == {S2, T1}
