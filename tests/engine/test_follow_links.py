"""Link farms: servers below one root by symbolic links. What is behind a link is followed as what is in the root.

If one of these fails, a lab's second server is not indexed, or its rows go when it is away for a moment. What one scan
makes of links, in `index/test_followed_links.py` holds, for each place that a link may have.
"""

import os
import shutil

import pytest

from alfwatchd.index.worker_pool import ENOUGH_UNITS
from alfwatchd.tree.packed import is_of_link
from kit.engine_tree import EXACT, write

pytestmark = pytest.mark.usefixtures("no_readers")

DAY = "lab/Subjects/m/2020-01-01"
S1, S2 = f"{DAY}/001", f"{DAY}/002"
PLACES = ["lab/Subjects", S1, f"{S1}/alf"] + [
    pytest.param(place, marks=pytest.mark.heavy) for place in ("lab", "lab/Subjects/m", DAY)
]
"""Where the link is: above sessions, a session, and below it."""
OTHERS = [f"other/Subjects/t/2020-01-01/{number:03d}/a.b.c" for number in range(3)]


@pytest.fixture
def server(tmp_path):
    """A folder beside the root, with the data that links lead to."""
    write(tmp_path / "server", f"{S1}/alf/a.b.c", f"{S1}/alf/probe00/a.b.c")
    return tmp_path / "server"


def link(box_root, server, place):
    (box_root / place).parent.mkdir(parents=True, exist_ok=True)
    (box_root / place).symlink_to(server / place)


def retarget(box_root, place, target):
    """Replace a link in one stroke, as ``ln -sfn`` does."""
    new = box_root / "other/new link"
    new.symlink_to(target)
    new.rename(box_root / place)


@pytest.fixture
def farm(make_box, tmp_path, server):
    def make(place, **settings):
        link(tmp_path / "root", server, place)
        box = make_box(*OTHERS, follow_links=True, **settings)
        assert f"{S1}/alf/a.b.c" in box.paths()
        return box

    (tmp_path / "root").mkdir()
    return make


def behind(box):
    """Return the paths of the datasets that are not of the other lab."""
    return sorted(path for path in box.paths() if path.startswith("lab/"))


def problems(box):
    return {(problem.kind, problem.path) for problem in box.status().problems}


@pytest.mark.parametrize("with_workers", [False, pytest.param(True, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_behind_a_link_is_indexed_and_watched(farm, server, place, with_workers):
    box = farm(place, with_workers=with_workers)
    box.assert_equal()
    assert (problems(box), box.status().state) == (set(), "live")
    write(server, f"{S1}/alf/d.e.f", f"{S1}/alf/new/d.e.f")
    (server / f"{S1}/alf/a.b.c").unlink()
    box.live(3.0)
    assert behind(box) == [f"{S1}/alf/d.e.f", f"{S1}/alf/new/d.e.f", f"{S1}/alf/probe00/a.b.c"]
    assert box.sync().exactness == EXACT
    box.assert_equal()


@pytest.mark.parametrize("place", PLACES)
def test_a_link_that_comes_or_goes_is_seen_at_once(make_box, server, place):
    box = make_box(*OTHERS, f"{place.rpartition('/')[0] or 'third'}/", follow_links=True)
    (box.root / place).symlink_to(server / place)
    box.live(10.0)
    assert f"{S1}/alf/probe00/a.b.c" in box.paths()
    box.assert_equal()
    (box.root / place).unlink()
    box.live(10.0)
    assert behind(box) == []
    box.assert_equal()
    assert problems(box) == set()


@pytest.mark.parametrize("place", PLACES)
def test_a_server_that_is_away_keeps_its_rows(farm, server, place):
    """Without a guard of its own, a server that is unmounted looks as if its data had been deleted."""
    box = farm(place, poll_interval_seconds=20)
    before = behind(box)
    server.rename(server.with_name("away"))
    assert box.sync().exactness != EXACT
    box.live(30.0)
    assert behind(box) == before
    assert problems(box) == {("other_filesystem", place)}
    assert (box.status().state, bool(box.engine.model.why_unsure)) == ("polled", True)
    write(server.with_name("away"), f"{S1}/alf/later.e.f")
    server.with_name("away").rename(server)
    box.live(10.0)
    assert f"{S1}/alf/later.e.f" in behind(box)
    assert (problems(box), box.status().state, box.engine.model.why_unsure) == (set(), "live", "")
    box.assert_equal()


@pytest.mark.parametrize("place", PLACES)
def test_a_link_that_leads_to_other_data_keeps_its_rows(farm, server, place):
    """A mount point whose disk is not there is an empty folder, or one with the data of another lab."""
    box = farm(place)
    before = behind(box)
    for name, paths in {"empty": [f"{place}/"], "strange": [f"{place}/x/2020-01-01/001/a.b.c"]}.items():
        write(server.with_name(name), *paths)
        retarget(box.root, place, server.with_name(name) / place)
        box.live(10.0)
        assert (behind(box), problems(box)) == (before, {("other_filesystem", place)})
    retarget(box.root, place, server / place)
    box.live(10.0)
    assert (behind(box), problems(box)) == (before, set())
    box.assert_equal()


@pytest.mark.parametrize("place", [PLACES[0], PLACES[1], *PLACES[3:]])
def test_data_that_moved_are_known_again_behind_another_link(farm, server, place):
    box = farm(place, poll_interval_seconds=20)
    server.rename(server.with_name("moved"))
    retarget(box.root, place, server.with_name("moved") / place)
    box.live(30.0)
    assert (len(behind(box)), problems(box)) == (2, set())
    box.assert_equal()


@pytest.mark.parametrize("place", PLACES)
def test_a_server_that_is_away_at_the_start_keeps_its_rows(farm, server, place):
    box = farm(place)
    before = behind(box)
    box.stop()
    server.rename(server.with_name("away"))
    box.start()
    box.sync()
    assert (behind(box), problems(box)) == (before, {("other_filesystem", place)})
    server.with_name("away").rename(server)
    box.live(10.0)
    assert (behind(box), problems(box)) == (before, set())
    box.assert_equal()


@pytest.mark.parametrize("place", PLACES)
def test_a_link_that_was_removed_while_no_daemon_ran_is_no_server_that_is_away(farm, server, place):
    box = farm(place)
    box.stop()
    (box.root / place).unlink()
    box.start()
    box.sync()
    assert (behind(box), problems(box)) == ([], set())
    box.assert_equal()


def test_a_link_that_became_a_folder_has_the_rows_of_the_folder(farm, server):
    """The lab brings the data home: it copies them in place of the link."""
    box = farm("lab/Subjects/m")
    shutil.copytree(server / "lab/Subjects/m", box.root / "copy of m")
    (box.root / "lab/Subjects/m").unlink()
    (box.root / "copy of m").rename(box.root / "lab/Subjects/m")
    box.live(10.0)
    assert (len(behind(box)), problems(box)) == (2, set())
    assert not box.indexer.tables.get(S1).is_link
    box.assert_equal()
    shutil.rmtree(box.root / "lab/Subjects/m")
    link(box.root, server, "lab/Subjects/m")
    box.live(10.0)
    assert (len(behind(box)), problems(box)) == (2, set())
    assert box.indexer.tables.get(S1).is_link
    box.assert_equal()


def test_two_links_to_one_server_show_it_twice(farm, server):
    box = farm("lab/Subjects")
    (box.root / "lab2").mkdir()
    (box.root / "lab2/Subjects").symlink_to(server / "lab/Subjects")
    box.live(10.0)
    write(server, f"{S1}/alf/d.e.f")
    box.live(3.0)
    assert [path.partition("/")[0] for path in box.paths() if path.endswith("d.e.f")] == ["lab", "lab2"]
    box.assert_equal()


def test_a_dangling_link_of_which_nothing_is_known_is_told_and_hinders_nothing(make_box, tmp_path):
    box = make_box(*OTHERS, follow_links=True)
    (box.root / "lab").mkdir()
    (box.root / "lab/Subjects").symlink_to(tmp_path / "not mounted")
    box.live(10.0)
    assert problems(box) == {("link_nowhere", "lab/Subjects")}
    assert (box.status().state, box.engine.model.why_unsure) == ("live", "")
    write(tmp_path / "not mounted", "m/2020-01-01/001/a.b.c")
    box.sync()
    assert (behind(box), problems(box)) == ([f"{S1}/a.b.c"], set())
    os.unlink(box.root / "lab/Subjects")
    box.live(10.0)
    assert problems(box) == set()


def test_files_that_are_written_in_the_root_do_not_have_it_listed(make_box):
    """A log that grows in the root would have all its junk searched again each second."""
    box = make_box(*OTHERS, follow_links=True)
    looks = []
    box.count_looks(looks)
    for size in range(3):
        write(box.root, "daemon", size=size)
        write(box.root, "new", size=size)
        (box.root / "new").rename(box.root / "status")
        box.live(3.0)
    assert looks == []


def test_worker_processes_follow_as_the_engine_does(farm, tmp_path, server):
    """What a worker reads behind a link is marked, and a link there is not followed, as if the engine had read it."""
    days = [f"lab/Subjects/m/2021-{day // 28 + 1:02d}-{day % 28 + 1:02d}/001" for day in range(ENOUGH_UNITS + 10)]
    write(server, *(f"{day}/alf/a.b.c" for day in days))
    write(tmp_path / "third", "x.y.z")
    (server / days[0] / "raw").symlink_to(tmp_path / "third")
    box = farm("lab/Subjects", with_workers=True)
    assert len(behind(box)) == len(days) + 2
    assert problems(box) == {("link_not_followed", f"{days[0]}/raw")}
    box.assert_equal()
    session = box.indexer.tables.get(days[-1])
    assert session.is_link
    assert all(is_of_link(value) for folder in session.folders for value in folder.packed.unpack().values())
