"""Symbolic and hard links: files that change without an event at their own path.

If one of these fails, the row of a linked file keeps an old size or hash.
"""

import os
import shutil

import pytest

from alfwatchd.tree.hard_links import HardLinks
from kit.engine_tree import (
    EXACT,
    S1,
    S2,
    T1,
    sizes,
    write,
)
from kit.fuzz_disk import exchange

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda outside: write(outside, "x.y.z", size=9), id="target of a file grows"),
        pytest.param(lambda outside: (outside / "x.y.z").unlink(), id="target of a file goes"),
        pytest.param(lambda outside: write(outside, "late.y.z"), id="target of a dangling link comes"),
        pytest.param(lambda outside: (outside / "session").rename(outside / "away"), id="target of a session goes"),
        pytest.param(lambda outside: write(outside, "later/alf/d.e.f"), id="target of a dangling session comes"),
        pytest.param(lambda outside: exchange(outside / "session", outside / "second"), id="another target"),
        pytest.param(lambda outside: write(outside, "session/alf/new/d.e.f"), id="a folder in a linked session"),
    ],
)
def test_what_links_lead_to_is_seen_by_sync_and_now_and_then(make_box, change):
    box = make_box(f"{T1}/alf/a.b.c", poll_interval_seconds=300)
    outside = box.root.parent / "outside"
    write(outside, "x.y.z", "session/alf/a.b.c", "second/a.b.c")
    for link, target in {
        f"{T1}/x.y.z": "x.y.z", f"{T1}/late.y.z": "late.y.z", S1: "session", S2: "later",
    }.items():  # fmt: skip
        (box.root / link).parent.mkdir(parents=True, exist_ok=True)
        (box.root / link).symlink_to(outside / target)
    assert box.sync().exactness == EXACT
    box.assert_equal()
    detail = "every change is seen at once; folders that links lead to are scanned every 300 s and by sync"
    assert (box.status().state, box.status().detail) == ("live", detail)
    change(outside)
    box.live(301.0)
    by_itself, expected = sizes(box), box.truth()
    assert box.sync().exactness == EXACT
    assert by_itself == sizes(box)
    assert box.rows().datasets == expected.datasets
    change_back = outside / "x.y.z"
    write(outside, "x.y.z", size=30)
    assert box.sync().exactness == EXACT
    assert sizes(box)[f"{T1}/x.y.z"] == change_back.stat().st_size == 30
    box.assert_equal()


A, C, N = f"{S1}/alf/a.b.c", f"{S2}/c.d.e", f"{T1}/n.e.w"


def link(first, second):
    def run(root):
        os.link(root / first, root / second)

    return run


def append(path):
    def run(root):
        with (root / path).open("ab") as file:
            file.write(b"more")

    return run


def remove(path):
    return lambda root: (root / path).unlink()


def make_folder(path):
    return lambda root: (root / path).mkdir()


def rename(path, target):
    return lambda root: (root / path).rename(root / target)


@pytest.mark.parametrize(
    ("before", "since"),
    [
        pytest.param([link(A, N)], [append(N)], id="written to"),
        pytest.param([link(A, N)], [append(A)], id="written to by the first name"),
        pytest.param([link(A, N), link(A, f"{S2}/o.l.d")], [append(N)], id="three names"),
        pytest.param([], [link(A, N), append(N)], id="made and written to"),
        pytest.param([], [link(A, N), append(N), rename(N, f"{S2}/n.e.w")], id="made, written to, renamed"),
        pytest.param([link(A, N)], [append(N), remove(N)], id="written to and removed"),
        pytest.param([link(A, N)], [append(N), rename(N, f"{T1}/not-alf")], id="written to and renamed to junk"),
        pytest.param([link(A, N)], [append(N), rename(C, N)], id="written to and replaced"),
        pytest.param([link(A, N)], [append(N), remove(N), make_folder(N)], id="written to and now a folder"),
        pytest.param([link(A, N)], [append(N), rename("t", "u")], id="written to, its subject renamed"),
        pytest.param([link(A, N)], [append(N), rename("t", "../away")], id="written to, its subject moved out"),
        pytest.param([link(A, N)], [rename(A, f"{S2}/o.l.d"), append(N)], id="the other one renamed"),
    ],
)
def test_what_is_written_through_a_hard_link_changes_the_rows_of_all_its_names(make_box, before, since):
    box = make_box(A, C, f"{T1}/f.g.h")
    for change in before:
        change(box.root)
    box.sync()
    for change in since:
        change(box.root)
    assert box.sync().exactness == EXACT
    box.assert_equal()


def test_all_rows_are_searched_once_for_many_hard_links(make_box, monkeypatch):
    box = make_box(*[f"s/2020-01-01/{number}/a.b.c" for number in range(100, 120)], one_look_per_step=True)
    searches = []
    take_stale = HardLinks.take_stale
    monkeypatch.setattr(HardLinks, "take_stale", lambda *given: searches.append(1) or take_stale(*given))
    shutil.copytree(box.root / "s", box.root / "t", copy_function=os.link)
    box.sync()
    box.assert_equal()
    assert len(searches) == 1
