"""A problem appears, and goes when a person has mended the tree, while the daemon runs.

If one of these fails, a person mends a tree, and `status` still names it, until the scan of the next day.
"""

import os
import shutil

import pytest

from kit.engine_tree import S1, write

pytestmark = pytest.mark.usefixtures("no_readers")

DAY = "t/2020-01-02"


def problems(box):
    return {(problem.kind, problem.path) for problem in box.status().problems}


def test_datasets_in_a_date_folder_are_told_and_forgotten_at_once(make_box):
    box = make_box(S1 + "/a.b.c", f"{DAY}/")
    write(box.root, f"{DAY}/a.b.c", f"{DAY}/d.e.f")
    box.live(10.0)
    assert problems(box) == {("no_number", DAY)}
    write(box.root, f"{DAY}/001/")
    (box.root / f"{DAY}/a.b.c").rename(box.root / f"{DAY}/001/a.b.c")
    box.live(10.0)
    assert problems(box) == {("no_number", DAY)}
    (box.root / f"{DAY}/d.e.f").rename(box.root / f"{DAY}/001/d.e.f")
    box.live(10.0)
    assert problems(box) == set()
    box.assert_equal()


@pytest.mark.parametrize(
    ("kind", "where", "path", "place"),
    [
        ("misplaced", "old", "old/data/s/2020-01-01/001/a.b.c", f"{DAY}/001/a.b.c"),
        ("misplaced", "t/2020-02-30", "t/2020-02-30/001/a.b.c", f"{DAY}/001/a.b.c"),
        ("no_number", DAY, f"{DAY}/alf/a.b.c", f"{DAY}/001/a.b.c"),
        ("bad_collection", f"{S1}/my data", f"{S1}/my data/x/a.b.c", f"{S1}/data/a.b.c"),
        ("nested_session", f"{S1}/002", f"{S1}/002/a.b.c", f"{DAY}/002/a.b.c"),
    ],
)
def test_what_is_mended_in_a_folder_without_a_watch_is_seen_now_and_then(make_box, kind, where, path, place):
    """A person moves the data, and leaves the empty folders behind: the kernel tells of that in no watched folder."""
    box = make_box(f"{S1}/a.b.c", f"{DAY}/", path)
    # The names of misplaced folders differ by cause; each cause is tried in `alf/test_misplaced.py`.
    assert [found for found, _ in problems(box)] == [kind]
    (box.root / place).parent.mkdir(parents=True, exist_ok=True)
    (box.root / path).rename(box.root / place)
    for left in ("old/data/s/2020-01-01/001", "t/2020-02-30/001"):
        if (box.root / left).is_dir():
            os.rmdir(box.root / left)
    box.live(301.0)
    assert problems(box) == set()
    box.assert_equal()


def test_a_root_that_fills_with_what_one_cannot_read_says_so_and_recovers(make_box):
    """The first day of a lab: the root is empty when the daemon begins, and then people write a flat tree."""
    box = make_box("notes/")
    assert problems(box) == set()
    write(box.root, "m1_2021-01-05/a.b.c")
    box.live(301.0)
    assert problems(box) == {("nothing_found", "")}
    shutil.rmtree(box.root / "m1_2021-01-05")
    box.live(301.0)
    assert problems(box) == set()


def test_of_many_folders_with_problems_a_few_are_listed_at_a_time(make_box):
    """The look for a problem is bounded for each folder, and with thousands of them the sum has to be, too."""
    days = [f"s/2020-01-{day:02d}" for day in range(1, 31)]
    box = make_box(*(f"{day}/001/a.b.c" for day in days), *(f"{day}/alf/a.b.c" for day in days))
    looks = []
    box.count_looks(looks)
    box.live(301.0)
    assert len(looks) == 20
    box.live(300.0)
    assert sorted(looks) == days
