"""A trash or a plan's folder that another user has planted is never used, and one process uses the trash at a time."""

import os

import pytest

from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import Busy, PruneRefused
from alfwatchd.prune import empty_trash, trash_folder, walk
from kit.prune import entries, no_log, plan_for
from kit.trash import FILES, NOW, WEEK, look, make_root, move, undo

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root")


# What a lab member can plant where a group may write to the root.


def plant_link(root, elsewhere):
    (root / TRASH).symlink_to(elsewhere)


def plant_folder(root, _elsewhere):
    (root / TRASH).mkdir()
    os.chown(root / TRASH, 65534, 65534)


def plant_open_folder(root, _elsewhere):
    (root / TRASH).mkdir()
    (root / TRASH).chmod(0o770)


def plant_file(root, _elsewhere):
    (root / TRASH).write_text("")


def plant_pipe(root, _elsewhere):
    os.mkfifo(root / TRASH)


@pytest.mark.parametrize("plant", [plant_link, plant_folder, plant_open_folder, plant_file, plant_pipe])
def test_a_planted_trash_is_refused_and_nothing_goes(root, tmp_path, plant):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    before, plan = look(root), plan_for(root)
    plant(root, elsewhere)
    with pytest.raises(PruneRefused, match=r"prune\.trash_seconds = 0"):
        move(root, plan)
    assert (look(root).keys() - {TRASH}, os.listdir(elsewhere)) == (before.keys(), [])
    for call in (lambda: undo(root, plan), lambda: empty_trash.empty(root, None, no_log)):
        with pytest.raises(PruneRefused):
            call()
    empty_trash.empty_due(root, NOW + 2 * WEEK, no_log) if plant is not plant_open_folder else None
    assert look(root).keys() - {TRASH} == before.keys()


PLANTED_PLANS = ["link", "foreign", "open", "manifest link", "manifest foreign", "manifest open", "other plan"]


@pytest.mark.parametrize("how", PLANTED_PLANS)
def test_a_planted_plan_is_refused(root, tmp_path, how):
    plan = plan_for(root)
    move(root, plan)
    folder = root / TRASH / plan.plan_id
    manifest = folder / "manifest"
    match how:
        case "link":
            folder.rename(tmp_path / "moved")
            folder.symlink_to(tmp_path / "moved")
        case "foreign":
            os.chown(folder, 65534, 65534)
        case "open":
            folder.chmod(0o770)
        case "manifest link":
            manifest.rename(tmp_path / "moved")
            manifest.symlink_to(tmp_path / "moved")
        case "manifest foreign":
            os.chown(manifest, 65534, 65534)
        case "manifest open":
            manifest.chmod(0o666)
        case "other plan":
            folder = folder.rename(folder.with_name("0123456789abcdef"))
    before = entries(root)
    for call in (
        lambda: empty_trash.undo(root, folder.name, no_log),
        lambda: empty_trash.empty(root, folder.name, no_log),
    ):
        with pytest.raises(PruneRefused, match=TRASH):
            call()
    due = empty_trash.empty_due(root, NOW + 2 * WEEK, no_log)
    assert (due.n_files, len(due.kept)) == (0, 1)
    assert empty_trash.list_trashed(root)[0].trouble
    assert entries(root) == before


def test_two_do_not_use_one_trash_at_once(root):
    plan = plan_for(root)
    move(root, plan)
    with walk.open_root(root) as root_fd, trash_folder.open_trash(root_fd):
        for call in (
            lambda: undo(root, plan),
            lambda: empty_trash.empty(root, None, no_log),
            lambda: move(root, plan),
        ):
            with pytest.raises(Busy, match="another prune of this root"):
                call()
        assert empty_trash.list_trashed(root)[0].n_files == len(FILES)
