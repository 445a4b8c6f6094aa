"""Sessions that are gone though no event told: what is held, for how long, and what a person is told."""

import os
import shutil

import pytest

from alfwatchd.api import RescanRequest, SnapshotRequest
from alfwatchd.engine.messages import Reload
from alfwatchd.errors import PruneRefused
from alfwatchd.index import looker
from alfwatchd.prune.operations import require_not_held
from alfwatchd.watch.events import EventsLost, PathsChanged
from kit.engine import EngineBox
from kit.trees import fast_folder, write

HELD, EXACT, SCANNED = "held", "exact", "scanned"


def path(number, lab="lab"):
    return f"{lab}/Subjects/s{number}/2020-01-01/001"


def fill(root, numbers, lab="lab"):
    write(root, *(f"{path(number, lab)}/alf/a.b.npy" for number in numbers))


def remove(root, numbers, lab="lab"):
    for number in numbers:
        shutil.rmtree(root / lab / "Subjects" / f"s{number}")


@pytest.fixture
def make_box():
    boxes = []
    with fast_folder() as folder:

        def make(numbers, lab="lab", **settings):
            (folder / "root").mkdir()
            fill(folder / "root", numbers, lab)
            boxes.append(EngineBox(folder / "root", **settings))
            return boxes[-1]

        yield make
        for box in boxes:
            box.close()


@pytest.fixture(params=["poll", "overflow", "restart"])
def untold(request, make_box):
    """Return what makes a box, and does something to its tree that no event tells."""

    def make(numbers, **settings):
        more = {"watch": "poll"} if request.param == "poll" else {}
        box = make_box(numbers, **more, **settings)
        assert box.sync().exactness == (SCANNED if more else EXACT)

        def do(act):
            if request.param == "restart":
                box.stop()
                act()
                box.start()
            elif request.param == "overflow":
                box.hear()
                box.drop = lambda message: isinstance(message, PathsChanged)
                act()
                box.hear()
                box.drop = lambda message: False
                box.inbox.post(EventsLost("overflow of the kernel's event queue"))
            else:
                act()

        return box, do

    return make


def listed(box):
    return {each.rpartition("/alf/")[0] for each in box.paths()}


def stored(box):
    sessions, _ = box.stored()
    return {f"{row['lab']}/Subjects/{row['subject']}/{row['date']}/{row['number']:03d}" for row in sessions}


# (story, sessions, those that go, whether they are held)
CASES = [
    ("a few of many", 60, 12, False),
    ("more than a fifth", 60, 13, True),
    ("nine of twenty", 20, 9, False),
    ("ten of twenty", 20, 10, True),
    ("all of three", 3, 3, True),
    ("two of three", 3, 2, False),
]


@pytest.mark.parametrize(("n_sessions", "n_gone", "is_held"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_what_is_held(untold, n_sessions, n_gone, is_held):
    box, do = untold(range(n_sessions))
    write(box.root, "other/")  # or the root would be suddenly empty
    do(lambda: (remove(box.root, range(n_gone)), fill(box.root, [100])))
    reply = box.sync()
    gone = {path(number) for number in range(n_gone)}
    everything = {path(number) for number in (*range(n_sessions), 100)}
    assert listed(box) == stored(box) == (everything if is_held else everything - gone)
    assert (reply.exactness == HELD, box.status().state == HELD) == (is_held, is_held)
    if not is_held:
        box.assert_equal()


def test_what_a_person_is_told(untold):
    box, do = untold(range(20))
    do(lambda: os.rename(box.root / "lab", box.root / "renamed"))
    before = box.indexer.tables.counts.n_datasets
    assert box.sync().exactness == HELD
    status = box.status()
    assert "20 of 20 sessions are gone and 20 are new since " in status.detail
    assert (
        "their rows are kept. If a disk is missing, mount it. If the sessions were really removed, run alfwatchd rescan"
        in status.detail
    )
    assert [(each.kind, each.path, each.message) for each in status.problems] == [("held", "", status.detail)]
    assert before in (0, 20)
    assert box.indexer.tables.counts.n_datasets == 40
    view = box.answer(box.ask(SnapshotRequest))
    with pytest.raises(PruneRefused, match="20 of 20 sessions are gone"):
        require_not_held(view)


def test_it_ends_when_the_sessions_are_back(untold):
    box, do = untold(range(20))
    away = box.root.with_name("away")
    do(lambda: shutil.copytree(box.root, away) and remove(box.root, range(15)))
    assert box.sync().exactness == HELD
    fill(box.root, range(7))
    assert box.sync().exactness == HELD  # fewer than would be held are missing, and still each may be on a disk
    assert listed(box) == {path(number) for number in range(20)}
    fill(box.root, range(7, 15))
    assert box.sync().exactness in (EXACT, SCANNED)
    assert box.status().problems == []
    box.assert_equal()


def test_it_ends_when_a_person_says_so(untold):
    box, do = untold(range(20))
    do(lambda: remove(box.root, range(15)))
    assert box.sync().exactness == HELD
    box.answer(box.ask(RescanRequest, accept_root=True, path=""))
    assert box.sync().exactness in (EXACT, SCANNED)
    assert listed(box) == stored(box) == {path(number) for number in range(15, 20)}
    box.assert_equal()
    box.stop()
    box.start()
    assert box.sync().exactness in (EXACT, SCANNED)


def test_a_restart_asks_again(untold):
    box, do = untold(range(20))
    do(lambda: remove(box.root, range(15)))
    assert box.sync().exactness == HELD
    before = box.rows().datasets
    for _ in range(2):
        box.stop()
        box.start()
        assert box.sync().exactness == HELD
        assert "15 of 20 sessions are gone and 0 are new since the last run" in box.status().detail
        assert box.rows().datasets == before
        assert stored(box) == {path(number) for number in range(20)}


def test_other_changes_are_taken_while_rows_are_held(untold):
    box, do = untold(range(20))
    do(lambda: remove(box.root, range(15)))
    assert box.sync().exactness == HELD
    write(box.root, f"{path(19)}/alf/c.d.npy")
    fill(box.root, [200])
    (box.root / path(18) / "alf/a.b.npy").unlink()
    assert box.sync().exactness == HELD
    _, datasets = box.stored()
    assert sorted(row["rel_path"] for row in datasets) == ["alf/a.b.npy"] * 20 + ["alf/c.d.npy"]


def test_while_rows_are_held_nothing_else_goes_untold(untold):
    """Else a disk that fails slowly would take all, a little at a time."""
    box, do = untold(range(40))
    do(lambda: remove(box.root, range(15)))
    assert box.sync().exactness == HELD
    do(lambda: remove(box.root, range(15, 18)))
    assert box.sync().exactness == HELD
    assert {path(number) for number in range(40)} == listed(box)


def test_a_disk_below_that_has_a_lab(untold):
    box, do = untold(range(60))
    fill(box.root, range(10), "small")
    assert box.sync().exactness in (EXACT, SCANNED)
    do(lambda: (shutil.rmtree(box.root / "small"), fill(box.root, [1000], "small")))
    assert box.sync().exactness == HELD
    assert "10 of 70 sessions are gone and 1 are new" in box.status().detail


def test_a_setting_that_leaves_sessions_out_is_no_loss(untold):
    box, do = untold(range(20))
    box.new_settings["exclude"] = ("s1*/",)
    do(lambda: None)
    box.inbox.post(Reload())
    assert box.sync().exactness in (EXACT, SCANNED)
    assert listed(box) == {path(number) for number in (0, *range(2, 10))}
    box.assert_equal()


def test_the_fraction_is_a_setting(untold):
    box, do = untold(range(20), guard={"max_lost_fraction": 0.8})
    do(lambda: remove(box.root, range(15)))
    assert box.sync().exactness in (EXACT, SCANNED)
    box.assert_equal()


# What events told.


def remove_by_hand(root):
    remove(root, range(20))


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(remove_by_hand, id="each subject"),
        pytest.param(lambda root: shutil.rmtree(root / "lab"), id="the lab"),
        pytest.param(lambda root: os.rename(root / "lab", root / "renamed"), id="renamed"),
        pytest.param(lambda root: os.rename(root / "lab", root.with_name("away")), id="moved out"),
        pytest.param(lambda root: (shutil.rmtree(root / "lab"), fill(root, range(3))), id="removed and made again"),
    ],
)
@pytest.mark.parametrize("is_late", [False, True], ids=["looked at after", "looked at before"])
def test_what_events_told_goes_at_once(make_box, act, is_late):
    box = make_box(range(20))
    write(box.root, "other/")
    assert box.sync().exactness == EXACT
    if is_late:  # a scan of everything sees it first, and ends before the events come
        held_up = []
        box.drop = lambda message: isinstance(message, PathsChanged) and (held_up.append(message) or True)
        act(box.root)
        box.hear()
        box.indexer.start_scan("test", box.now)
        box.step()
        box.drop = lambda message: False
        for message in held_up:
            box.inbox.post(message)
    else:
        act(box.root)
    assert box.sync().exactness in (EXACT, SCANNED)
    box.assert_equal()


def test_events_prove_nothing_once_some_were_lost(make_box):
    box = make_box(range(20))
    assert box.sync().exactness == EXACT
    box.hear()
    box.inbox.post(EventsLost("overflow of the kernel's event queue"))
    box.step()
    remove(box.root, range(15))
    assert box.sync().exactness == HELD
    box.answer(box.ask(RescanRequest, accept_root=True, path=""))
    fill(box.root, range(15))
    assert box.sync().exactness == EXACT
    remove(box.root, range(15))  # and after a whole scan they do
    assert box.sync().exactness == EXACT
    box.assert_equal()


def test_files_with_other_inodes_are_no_loss(untold):
    """A FUSE pool makes numbers up at each mount: each folder goes and comes."""
    box, do = untold(range(20))

    def copy():
        os.rename(box.root / "lab", box.root.with_name("away"))
        shutil.copytree(box.root.with_name("away"), box.root / "lab")

    do(copy)
    assert box.sync().exactness in (EXACT, SCANNED)
    box.assert_equal()


def test_another_spelling_of_the_number_is_the_same_session(untold):
    box, do = untold(range(20))

    def respell():
        for number in range(20):
            os.rename(box.root / path(number), box.root / path(number).replace("/001", "/1"))

    do(respell)
    assert box.sync().exactness in (EXACT, SCANNED)
    box.assert_equal()


def test_what_cannot_be_read_is_not_gone(untold, monkeypatch):
    """A subject that was mounted again, with other inodes, and cannot be listed yet."""
    box, do = untold(range(20))
    real = looker.open_folder

    def refuse(root, folder):
        if "lab/Subjects/s3" in folder.path.split("/2020")[0:1]:
            raise PermissionError(13, "Permission denied")
        return real(root, folder)

    def replace():
        os.rename(box.root / "lab/Subjects/s3", box.root.with_name("away"))
        shutil.copytree(box.root.with_name("away"), box.root / "lab/Subjects/s3")
        monkeypatch.setattr(looker, "open_folder", refuse)

    do(replace)
    assert box.sync().exactness == "partial"
    monkeypatch.setattr(looker, "open_folder", real)
    assert box.sync().exactness in (EXACT, SCANNED)
    box.assert_equal()


def test_rows_that_the_first_scan_could_not_read_are_known(make_box, monkeypatch):
    """They come from the tables, and are not new."""
    box = make_box(range(20), watch="poll")
    box.sync()
    real = looker.open_folder

    def refuse(root, folder):
        if folder.path == "lab/Subjects":
            raise PermissionError(13, "Permission denied")
        return real(root, folder)

    box.stop()
    monkeypatch.setattr(looker, "open_folder", refuse)
    box.start()
    assert box.sync().exactness == "partial"
    assert len(listed(box)) == 20
    monkeypatch.setattr(looker, "open_folder", real)
    remove(box.root, range(15))
    assert box.sync().exactness == HELD
    assert "15 of 20 sessions are gone and 0 are new" in box.status().detail


def test_memory_of_inodes_outlives_a_restart(make_box):
    box = make_box(range(20))
    box.sync()
    inodes = {path(number): (box.root / path(number)).stat().st_ino for number in range(20)}
    assert box.state.load_seen() == inodes
    box.stop()
    box.start()
    assert {each.spellings[0]: each.ino for each in box.indexer.known.sample(lambda _: True)} == inodes
    box.sync()
