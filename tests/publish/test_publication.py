"""What a reader finds at a target at each moment, whatever happens to the publishers."""

import json
import os
import signal
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from alfwatchd.alf.file_names import INFO, TABLES, ZIP
from alfwatchd.errors import TargetChanged, TargetError
from alfwatchd.publish import publication
from alfwatchd.publish.folder import FolderTarget
from alfwatchd.publish.publication import publish
from kit.published import LOCATION, entry, folder_reader, look, names, unpack, write_tables

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def versions(folder):
    """Return what tells files from others of their name; reading them changes nothing of it."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: (about.st_ino, about.st_size, about.st_mtime_ns) for path, about in found.items()}


def test_nothing_is_published_where_nothing_changed(places):
    out_dir, target = places
    first = publish(out_dir, entry(target))
    before = versions(target)
    write_tables(out_dir, 2)  # another generation of the same rows, as after a restart
    again = publish(out_dir, entry(target))
    assert not again.published
    assert (again.name, again.date, again.n_sessions, again.n_datasets) == (first.name, first.date, 2, 4)
    assert versions(target) == before


def test_another_location_is_told(places):
    out_dir, target = places
    publish(out_dir, entry(target))
    assert publish(out_dir, entry(target, location="")).published
    assert look(folder_reader(target))


@pytest.mark.parametrize("lost", [ZIP, INFO, TABLES, f"{TABLES}/{ZIP}"])
def test_what_another_program_removed_comes_back(places, lost):
    out_dir, target = places
    first = publish(out_dir, entry(target))
    named = target / TABLES / first.name
    (named / ZIP if lost.startswith(TABLES) else target / lost).unlink()
    if lost == TABLES:
        named.rmdir()
    assert publish(out_dir, entry(target)).published
    assert look(folder_reader(target), LOCATION)


def test_dates_move_forward_though_the_clock_goes_back(places):
    out_dir, target = places
    dates = []
    for generation in range(1, 5):
        write_tables(out_dir, generation, [f"s{generation}"])
        now = START - timedelta(hours=generation)
        dates.append(publish(out_dir, entry(target), now=lambda now=now: now).date)
        assert look(folder_reader(target), LOCATION)[1:] == (dates[-1], {f"s{generation}"})
    minutes = [datetime.fromisoformat(date) for date in dates]
    assert [later - earlier for earlier, later in pairwise(minutes)] == [timedelta(minutes=1)] * 3


def test_the_date_of_a_publisher_that_died_before_its_json_is_not_used_again(places):
    """Clients without a location have its zip by then, and would take the next one of the same date for the same."""
    out_dir, target = places

    class Dying(FolderTarget):
        def replace(self, key, content, token):
            if key == INFO:
                raise TargetError("died")
            super().replace(key, content, token)

    publish(out_dir, entry(target), now=lambda: START)
    write_tables(out_dir, 2, ["dying"])
    with pytest.raises(TargetError, match="died"):
        publish(out_dir, entry(target), Dying(target), now=lambda: START)
    left = unpack((target / ZIP).read_bytes())[0]["date_created"]
    write_tables(out_dir, 3, ["next"])
    assert publish(out_dir, entry(target), now=lambda: START).date > left > look_before(target)


def look_before(target):
    """Return the date in the zip that was published first; its name sorts first."""
    return unpack((target / TABLES / names(target)[0] / ZIP).read_bytes())[0]["date_created"]


def test_old_generations_go_after_their_time(places):
    out_dir, target = places
    published = []

    def at(seconds, generation, keep=100):
        write_tables(out_dir, generation, [f"s{generation}"])
        return publish(out_dir, entry(target, keep_seconds=keep), now=lambda: START + timedelta(seconds=seconds))

    published = [at(0, 1).name, at(300, 2).name]
    assert names(target) == sorted(published)
    # The first was replaced at 300, however long it was in force before.
    outcome = at(360, 3)
    published.append(outcome.name)
    assert (outcome.removed, outcome.next_removal_seconds) == ((), 40)
    outcome = at(400, 3)  # nothing new, but something old
    assert (outcome.published, outcome.removed, outcome.next_removal_seconds) == (False, (published[0],), 60)
    assert names(target) == sorted(published[1:])
    place = FolderTarget(target)
    later = START + timedelta(seconds=460)
    assert publication.remove_old(entry(target, keep_seconds=100), place, now=lambda: later) is None
    assert names(target) == [published[2]]
    later += timedelta(days=1000)
    assert publication.remove_old(entry(target, keep_seconds=0), place, now=lambda: later) is None
    assert names(target) == [published[2]]


def test_what_a_dead_publisher_left_goes_too(places):
    out_dir, target = places
    (target / TABLES / "9-left").mkdir(parents=True)
    (target / TABLES / "9-left" / f".{ZIP}.tmp").write_bytes(b"half")
    first = publish(out_dir, entry(target, keep_seconds=0))
    assert names(target) == [first.name]
    (target / TABLES / "mine").mkdir()
    (target / TABLES / "mine" / "notes.txt").write_text("keep")
    write_tables(out_dir, 2, ["s3"])
    assert publish(out_dir, entry(target, keep_seconds=0)).removal_error == ""
    assert (target / TABLES / "mine" / "notes.txt").exists()
    assert look(folder_reader(target), LOCATION)[2] == {"s3"}


def test_a_target_that_takes_only_new_files_is_not_filled_by_many_tries(places):
    out_dir, target = places
    first = publish(out_dir, entry(target))

    class Refusing(FolderTarget):
        def replace(self, key, content, token):
            if token is not None:
                raise TargetError("not implemented")
            super().replace(key, content, token)

    for generation in (2, 3, 4):
        write_tables(out_dir, generation, [f"s{generation}"])
        with pytest.raises(TargetError, match="not implemented"):
            publish(out_dir, entry(target), Refusing(target))
    assert names(target) == [first.name]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_another_kind_that_is_damaged_is_replaced(places, method):
    out_dir, target = places
    with zipfile.ZipFile(target / ZIP, "w", method) as zipped:
        zipped.writestr(INFO, '{"date_created": "2026-01-01 00:00"}' * 9)
    content = bytearray((target / ZIP).read_bytes())
    content[30 + len(INFO) : 60 + len(INFO)] = bytes(30)
    (target / ZIP).write_bytes(content)
    publish(out_dir, entry(target))
    assert look(folder_reader(target), LOCATION)


def test_what_cannot_be_removed_does_not_undo_the_publication(places):
    out_dir, target = places

    class Keeping(FolderTarget):
        def remove(self, generation):
            raise TargetError(f"{generation}: forbidden")

    first = publish(out_dir, entry(target))
    write_tables(out_dir, 2, ["s3"])
    outcome = publish(out_dir, entry(target, keep_seconds=0), Keeping(target))
    assert outcome.published
    assert outcome.removal_error == f"old generations could not be removed: {first.name}: forbidden"
    assert outcome.next_removal_seconds == 3600
    assert look(folder_reader(target), LOCATION)[2] == {"s3"}


@pytest.mark.parametrize("junk", [b"", b"PK", b"[" * 100_000, b'{"date_created": 7, "alfwatchd": {"replaced": [1]}}'])
def test_whatever_lies_at_the_target_is_replaced(places, junk):
    out_dir, target = places
    (target / INFO).write_bytes(junk)
    (target / ZIP).write_bytes(junk)
    publish(out_dir, entry(target))
    assert look(folder_reader(target), LOCATION)
    whole = (target / ZIP).read_bytes()
    (target / ZIP).write_bytes(whole[: len(whole) // 2] + bytes(50) + whole[len(whole) // 2 + 50 :])
    publish(out_dir, entry(target))
    broken = json.loads((target / INFO).read_text())
    broken["tables"] = 3
    (target / INFO).write_text(json.dumps(broken))
    assert publish(out_dir, entry(target)).published
    assert look(folder_reader(target), LOCATION)


def test_once_begins_again_if_another_publisher_was_faster(places, tmp_path, monkeypatch):
    out_dir, target = places
    write_tables(tmp_path / "other", 1, ["fast"])
    replace, times = FolderTarget.replace, []

    def slow(self, key, content, token):
        if key == ZIP and not times:
            times.append(1)
            publish(tmp_path / "other", entry(target))
        replace(self, key, content, token)

    monkeypatch.setattr(FolderTarget, "replace", slow)
    assert publication.publish_surely(out_dir, entry(target)).published
    assert times
    assert look(folder_reader(target), LOCATION)[2] == {"s1", "s2"}


@pytest.mark.parametrize("step", [ZIP, INFO])
def test_what_another_publisher_wrote_meanwhile_is_not_overwritten(places, tmp_path, step):
    out_dir, target = places
    publish(out_dir, entry(target))
    write_tables(out_dir, 2, ["slow"])
    write_tables(tmp_path / "other", 2, ["fast"])

    class Slow(FolderTarget):
        def replace(self, key, content, token):
            if key == step:
                publish(tmp_path / "other", entry(target))
            super().replace(key, content, token)

    with pytest.raises(TargetChanged):
        publish(out_dir, entry(target), Slow(target))
    date, subjects = look(folder_reader(target), LOCATION)[1:]
    assert subjects == {"fast"}
    assert publish(out_dir, entry(target)).date > date
    assert look(folder_reader(target), LOCATION)[2] == {"slow"}


KILLER = """
import os, signal
from types import SimpleNamespace
from alfwatchd.publish import folder as folder_target
from alfwatchd import atomic, files
left = int(os.environ["KILL_AT"])
def counted(inner):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **options)
    return call
counting = {name: counted(getattr(os, name)) for name in ("mkdir", "fsync", "replace", "unlink")}
folder_target.os = atomic.os = files.os = SimpleNamespace(**vars(os) | counting)
folder_target.shutil = SimpleNamespace(copyfileobj=counted(folder_target.shutil.copyfileobj))
"""


def test_publishers_killed_at_every_step(places):
    """Steps are counted in a forked child, so that each is reached exactly."""
    out_dir, target = places
    publish(out_dir, entry(target), now=lambda: START)
    step, ended = 0, None
    while ended != 0:
        step += 1
        assert step < 60
        write_tables(out_dir, step + 1, [f"s{step}"])
        before = look(folder_reader(target), LOCATION)
        ended = run_and_kill(step, out_dir, target)
        after = look(folder_reader(target), LOCATION)
        assert after == before or after[2] == {f"s{step}"}
        if step % 3 == 0:  # sometimes another one goes on, sometimes the next one dies on what this one left
            publish(out_dir, entry(target))
            _, date, subjects = look(folder_reader(target), LOCATION)
            assert subjects == {f"s{step}"}
            assert unpack((target / ZIP).read_bytes())[0]["date_created"] == date > before[1]
    assert step > 15
    write_tables(out_dir, 99, ["last"])
    publish(out_dir, entry(target, keep_seconds=0))
    assert len(names(target)) == 1
    assert not list(target.rglob("*.tmp"))


def run_and_kill(step, out_dir, target):
    """Publish in a child that is killed at a step; return 0 where it came to its end before."""
    pid = os.fork()
    if pid == 0:
        try:
            os.environ["KILL_AT"] = str(step)
            exec(KILLER, {})
            publish(out_dir, entry(target))
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status


def test_threads_race(places):
    above, target = places[1].parent, places[1]
    lost, errors = [], []

    def run(which):
        for number in range(8):
            write_tables(above / f"t{which}", number + 1, [f"t{which}n{number}"])
            try:
                publish(above / f"t{which}", entry(target))
            except TargetChanged:
                lost.append(which)
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)
            look(folder_reader(target), LOCATION)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    # Who lost after all but the JSON was written leaves an archive, which goes after its time.
    assert len(names(target)) >= 24 - len(lost) > 0
    assert look(folder_reader(target), LOCATION)
