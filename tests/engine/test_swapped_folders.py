"""Folders that another process renames or locks while the engine looks at them.

If one of these fails, rows of one folder appear under the path of another, or rows of existing files are dropped.
"""

import shutil
import tempfile
from pathlib import Path

import pytest

from alfwatchd.api import RescanRequest
from kit.children import as_nobody, needs_root
from kit.engine import EngineBox
from kit.engine_tree import EXACT, PARTIAL, S1, T1, events_are_lost, sizes, write
from kit.fuzz_disk import exchange

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.mark.parametrize("n_looks", [1, 2, 3])
def test_a_folder_that_is_swapped_during_several_looks(make_box, n_looks):
    # The parent is looked at while it is itself, the folder each time while it is another one.
    box = make_box(f"{S1}/alf/a.b.c", one_look_per_step=True)
    write(box.root, f"{T1}/alf/a.b.c", size=2)
    box.sync()
    swapped = []

    def swap(path):
        if (path == f"{S1}/alf") != bool(swapped):
            exchange(box.root / "s", box.root / "t")
            swapped[:] = [] if swapped else [path]

    write(box.root, f"{S1}/alf/g.h.i")
    box.hear()
    box.step()
    box.now += 0.2
    for _ in range(2 * n_looks):
        box.ambushes["before opening"].append(swap)
        box.step()
    box.call_off_ambushes()
    swap(f"{S1}/alf" if not swapped else "")
    if swapped:
        swap("")
    box.sync()
    box.assert_equal()


@needs_root
def test_a_folder_that_is_replaced_below_one_that_cannot_be_listed():
    def run():
        home = Path(tempfile.mkdtemp())
        write(home / "root", f"{S1}/alf/a.b.c")
        write(home / "other", "d.e.f")
        box = EngineBox(home / "root")
        box.sync()
        session = box.root / S1
        box.drop = events_are_lost
        (session / "alf").rename(home / "away")
        (home / "other").rename(session / "alf")
        box.hear()
        box.drop = lambda _: False
        session.chmod(0o111)
        box.answer(box.ask(RescanRequest, path=f"{S1}/alf"))
        found = [sizes(box), box.sync().exactness, [problem.path for problem in box.status().problems]]
        session.chmod(0o755)
        found += [box.sync().exactness, sizes(box)]
        box.assert_equal()
        box.close()
        shutil.rmtree(home)
        return found

    kept, partial, problems, exact, after = as_nobody(run)
    assert (kept, partial, problems) == ({f"{S1}/alf/a.b.c": 1}, PARTIAL, [S1, f"{S1}/alf"])
    assert (exact, after) == (EXACT, {f"{S1}/alf/d.e.f": 1})


@pytest.mark.parametrize("level", ["s", "s/2020-01-01", S1, f"{S1}/alf"])
@pytest.mark.parametrize("moment", ["before a new watch", "before listing", "after listing", "after applying"])
def test_a_folder_that_is_swapped_during_one_look(make_box, level, moment):
    # Another process renames a folder and renames it back. Without events, the engine would not look again.
    other = level.replace("s", "t", 1)
    box = make_box(f"{S1}/alf/a.b.c", f"{S1}/alf/probe00/d.e.f")
    write(box.root, f"{T1}/alf/a.b.c", f"{T1}/alf/probe00/d.e.f", size=2)
    box.sync()

    def swap(_):
        exchange(box.root / level, box.root / other)

    write(box.root, f"{S1}/alf/g.h.i")
    box.hear()
    box.step()
    box.ambushes["before opening"].append(swap)
    box.ambushes[moment].append(swap)
    box.step(0.2)
    if box.ambushes[moment]:
        box.spring(moment, "")
    box.sync()
    box.assert_equal()


@needs_root
def test_a_folder_that_cannot_be_read_keeps_its_rows_and_is_tried_again():
    def run():
        home = Path(tempfile.mkdtemp())
        write(home / "root", f"{S1}/alf/a.b.c", f"{T1}/a.b.c")
        box = EngineBox(home / "root")
        box.sync()
        alf = box.root / S1 / "alf"
        alf.chmod(0)
        replies = [box.sync().exactness]
        status = box.status()
        told = [(problem.kind, problem.path) for problem in status.problems]
        kept = sizes(box)
        box.drop = events_are_lost  # so that nothing but the next attempt can find out
        alf.chmod(0o700)
        write(box.root, f"{S1}/alf/a.b.c", size=5)
        box.hear()
        box.drop = lambda _: False
        box.live(31.0)
        after = sizes(box)
        replies.append(box.sync().exactness)
        box.assert_equal()
        problems = box.status().problems
        box.close()
        shutil.rmtree(home)
        return replies, told, kept, problems, after

    replies, told, kept, problems, after = as_nobody(run)
    assert replies == [PARTIAL, EXACT]
    assert told == [("unreadable", f"{S1}/alf")]
    assert kept == {f"{S1}/alf/a.b.c": 1, f"{T1}/a.b.c": 1}
    assert problems == []
    assert after == {f"{S1}/alf/a.b.c": 5, f"{T1}/a.b.c": 1}


def test_a_link_that_cannot_be_followed_keeps_what_it_led_to(make_box):
    # ENAMETOOLONG stands for EIO, ESTALE and the like, which say nothing about what is there.
    box = make_box(f"{T1}/a.b.c")
    write(box.root.parent / "outside", "alf/a.b.c", "x.y.z")
    (box.root / "s/2020-01-01").mkdir(parents=True)
    (box.root / S1).symlink_to(box.root.parent / "outside")
    (box.root / T1 / "x.y.z").symlink_to(box.root.parent / "outside/x.y.z")
    box.sync()
    before = sizes(box)
    assert before == {f"{T1}/a.b.c": 1, f"{T1}/x.y.z": 1, f"{S1}/alf/a.b.c": 1, f"{S1}/x.y.z": 1}
    for link in (box.root / S1, box.root / T1 / "x.y.z"):
        link.unlink()
        link.symlink_to("x" * 300)
    assert box.sync().exactness == PARTIAL
    assert sizes(box) == before
    assert {problem.path for problem in box.status().problems} == {"s/2020-01-01", T1}
    for link in (box.root / S1, box.root / T1 / "x.y.z"):
        link.unlink()
    assert box.sync().exactness == EXACT
    assert sizes(box) == {f"{T1}/a.b.c": 1}
    assert box.status().problems == []
