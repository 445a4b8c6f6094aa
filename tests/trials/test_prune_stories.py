"""Made-up roots, references of every maker, links, mounts, writers and kills: no file goes that a rule keeps, and every
undo brings back the same bytes, modes and owners."""

import contextlib
import os
import random
import shutil
import subprocess
from collections import Counter

import pytest

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused
from alfwatchd.prune import empty_trash, operations, reference_files
from alfwatchd.prune.links import find_link_targets
from alfwatchd.scan.mounts import mounts_near
from alfwatchd.service.once import look_once
from alfwatchd.settings import Settings
from kit.disk_images import make_image, mount
from kit.prune_story import EXCLUDED, FARTHER, make_story, write_file
from kit.trash import NOW, WEEK, killed, look, move

pytestmark = pytest.mark.heavy

N_SHORT, N_LONG = 60, 20_000
OPTIONS = {"excluded": lambda path: f"/{EXCLUDED}" in path}


@pytest.fixture(autouse=True)
def years_later(monkeypatch):
    """No file can be made with a birth time in the past, so the references are of a time to come, when this is past."""
    monkeypatch.setattr(reference_files, "utc_now", lambda: FARTHER)


def settings_of(story):
    places = {name: story.top / name for name in ("out_dir", "state_dir", "socket")}
    prune = {"reference": story.reference, "max_fraction": 1.0}
    return Settings(root=story.root, exclude=[EXCLUDED], prune=prune, **places)


def make_plan(story):
    """Index the root and plan, as `alfwatchd prune` does without a daemon."""
    settings = settings_of(story)
    return operations.plan_prune(look_once(settings), settings, operations.PruneOptions())


def apply(story, plan):
    move(story.root, plan, find_protected=lambda: find_link_targets(story.root), **OPTIONS)


def files_of(state):
    return {path for path, (_, mode, *_) in state.items() if mode & 0o170000 == 0o100000}


# What others do between the plan and a move, and what it means for what may go.


def rewrite(story, path):
    (story.root / path).write_text("other content")


def replace(story, path):
    (story.root / path).rename(story.top / f"replaced{len(list(story.top.iterdir()))}")
    (story.root / path).write_text("another file")


def change_time(story, path):
    os.utime(story.root / path, (5, 5))


def link_to(story, path):
    (story.root / ".late").mkdir(exist_ok=True)
    (story.root / ".late" / f"link{len(os.listdir(story.root / '.late'))}").symlink_to(story.root / path)


def move_folder(story, path):
    folder = (story.root / path).parent
    folder.rename(folder.with_name(f"{folder.name}x"))


def put_beside(story, path):
    write_file(story, f"{path.rpartition('/')[0]}/late.arrival.npy", "late")


BEFORE_THE_FIRST_MOVE = (rewrite, replace, change_time, link_to, put_beside)
AT_ANY_MOVE = (rewrite, replace, put_beside, move_folder)


def meddle(story, chance, actions):
    """Do something to a file that may go, and take it out of what may."""
    there = sorted(path for path in story.may_go if (story.root / path).is_file())
    if there:
        path = chance.choice(there)
        act = chance.choice(actions)
        with contextlib.suppress(OSError):
            act(story, path)
        if act is not put_beside:
            story.may_go.discard(path)


def apply_among_writers(story, plan, chance):
    """Apply, while others act right before some of the renames."""
    real, left = linux.rename_no_replace, chance.randrange(3)

    def rename(source, target, **folders):
        nonlocal left
        if left and chance.random() < 0.3:
            left -= 1
            meddle(story, chance, AT_ANY_MOVE)
        return real(source, target, **folders)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linux, "rename_no_replace", rename)
        apply(story, plan)


# Stories.


def check(story, chance, tally):
    plan = make_plan(story)
    tally["operations"] += 1
    assert {file.path for file in plan.files} <= story.may_go
    if story.is_plain:
        assert {file.path for file in plan.files} == story.may_go
    how = chance.choice(("apply", "writers before", "writers meanwhile", "kill", "kill"))
    if how == "writers before":
        meddle(story, chance, BEFORE_THE_FIRST_MOVE)
    before, may_go = look(story.root), set(story.may_go)
    match how:
        case "writers meanwhile":
            apply_among_writers(story, plan, chance)
            check_nothing_is_lost(story, before)
            return
        case "kill":
            tally["kills"] += killed(chance.randrange(1, 120), apply, story, plan)
        case _:
            apply(story, plan)
    gone = files_of(before) - files_of(look(story.root))
    assert gone <= may_go, f"{gone - may_go} went"
    if how == "apply":
        assert gone == {file.path for file in plan.files}
    if how == "kill" and chance.random() < 0.5:
        tally["kills"] += killed(chance.randrange(1, 60), undo, story, plan)
    undo(story, plan)
    assert look(story.root) == before
    tally["comparisons"] += 1
    if how != "writers before" and chance.random() < 0.3:  # to a new plan, what was rewritten is a file like any other
        apply(story, make_plan(story))
        empty_trash.empty_due(story.root, NOW + WEEK, lambda _: None)
        assert files_of(before) - files_of(look(story.root)) <= may_go
        assert not (story.root / TRASH).exists()


def undo(story, plan):
    with contextlib.suppress(PruneRefused):  # nothing was moved
        empty_trash.undo(story.root, plan.plan_id, lambda _: None)
    empty_trash.empty_due(story.root, NOW, lambda _: None)


def check_nothing_is_lost(story, before):
    """Each content that was there is still there, and what a rule keeps is where it was."""
    contents = [path.read_bytes() for path in story.top.rglob("*") if path.is_file() and not path.is_symlink()]
    missing = Counter(before[path][0] for path in files_of(before)) - Counter(contents)
    rewritten = {what[0] for path, what in before.items() if path not in story.may_go and "unlisted" in str(what[0])}
    assert not {each for each in missing if each not in rewritten}
    stays = {path for path in files_of(before) if story.fates.get(path) not in (None, "unlisted")}
    moved = {path for path in stays if not (story.root / path).parent.exists()}  # by others, with their folder
    undo_all(story)
    assert stays - moved <= files_of(look(story.root))


def undo_all(story):
    for plan in {each.name.partition("-")[0] for each in empty_trash.list_trashed(story.root)}:
        empty_trash.undo(story.root, plan, lambda _: None)


def run(top, numbers, tally, **kinds):
    """Tell many stories below a folder; a failure names the seed that tells it again."""
    for seed in numbers:
        folder = top / "story"
        story = make_story(folder, seed, **kinds)
        try:
            check(story, random.Random(seed), tally)
        except BaseException:
            print(story.describe())  # noqa: T201 - pytest shows it if the test fails
            raise
        finally:
            for mount_point in reversed(mounts_near(str(folder))[1]):  # others may have moved it with a folder above
                subprocess.run(["umount", "--lazy", mount_point.path], check=True)
            if kinds.get("on_btrfs"):
                for volume in folder.rglob("sub"):
                    subprocess.run(["btrfs", "-q", "subvolume", "delete", volume], check=False, capture_output=True)
            shutil.rmtree(folder)


def seeds(number):
    start = random.randrange(1 << 32)
    return range(start, start + number)


@pytest.mark.timeout(7200)
def test_no_file_goes_that_a_rule_keeps_and_every_undo_is_whole(tmp_path, scale, tally):
    run(tmp_path, seeds(scale(N_SHORT, N_LONG)), tally)


@pytest.mark.timeout(7200)
@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("fs_type", ["ext4", "btrfs"])
def test_with_bind_mounts_and_subvolumes(tmp_path, fs_type, scale, tally):
    place = tmp_path / "disk"
    place.mkdir()
    mount(make_image(tmp_path / "image", fs_type), place)
    try:
        kinds = {"may_mount": True, "on_btrfs": fs_type == "btrfs"}
        run(place, seeds(scale(N_SHORT // 5, N_LONG // 20)), tally, **kinds)
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)
