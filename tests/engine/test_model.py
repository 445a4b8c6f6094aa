"""Settings that change while the daemon runs.

If one of these fails, a reload does not do what the settings say.
"""

import pytest

from alfwatchd.engine.messages import Reload
from alfwatchd.errors import ConfigError
from kit.engine_tree import EXACT, S1, T1, sizes, stored_paths, write

pytestmark = pytest.mark.usefixtures("no_readers")


def test_exclude_is_changed_by_a_reload(make_box):
    box = make_box(f"{S1}/a.b.c", f"{S1}/alf/d.e.f", f"{T1}/a.b.c")
    for exclude, expected in [
        (("t/", "*.e.f"), {f"{S1}/a.b.c"}),
        (("*.b.c",), {f"{S1}/alf/d.e.f"}),
        ((), {f"{S1}/a.b.c", f"{S1}/alf/d.e.f", f"{T1}/a.b.c"}),
    ]:
        box.new_settings["exclude"] = exclude
        box.inbox.post(Reload())
        reply = box.sync()  # what was ordered before it counts
        assert (set(sizes(box)), reply.exactness) == (expected, EXACT)
        box.assert_equal()
        assert box.status().events_lost == 0
    write(box.root, f"{T1}/alf/d.e.f")
    box.sync()
    box.assert_equal()


def test_an_excluded_folder_that_changes_stays_out(make_box):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c", exclude=("t/", "*.e.f"))
    write(box.root, f"{T1}/d.b.c", f"{S1}/d.e.f", f"{S1}/t/a.b.c")
    box.sync()
    assert set(sizes(box)) == {f"{S1}/a.b.c"}
    box.assert_equal()


def test_lab_is_changed_by_a_reload(make_box):
    box = make_box(f"{S1}/a.b.c", "own/Subjects/u/2020-01-01/001/a.b.c")
    ids = {row["id"] for row in box.stored()[0]}
    box.new_settings["lab"] = "ours"
    box.inbox.post(Reload())
    box.sync()
    assert {row["subject"]: row["lab"] for row in box.stored()[0]} == {"s": "ours", "u": "own"}
    assert {row["id"] for row in box.stored()[0]} == ids


def test_intervals_are_changed_by_a_reload(make_box):
    box = make_box(f"{S1}/a.b.c", settle_seconds=5, longest_wait_seconds=50, flush_interval_seconds=19)
    box.new_settings.update(settle_seconds=0.5, longest_wait_seconds=1, flush_interval_seconds=2)
    box.inbox.post(Reload())
    for name in ("d.e.f", "g.h.i"):
        write(box.root, f"{S1}/{name}")
        box.live(0.4)
        assert f"{S1}/{name}" not in sizes(box)
        box.live(0.2)
        assert f"{S1}/{name}" in sizes(box)
        box.live(2.0)
        assert name in stored_paths(box)


def test_settings_that_are_refused_change_nothing(make_box):
    box = make_box(f"{S1}/a.b.c")
    before = box.engine.model.settings

    def refuse():
        raise ConfigError("lab: no")

    box.settings = refuse
    box.inbox.post(Reload())
    box.run()
    assert box.engine.model.settings is before
    assert box.status().state == "live"
