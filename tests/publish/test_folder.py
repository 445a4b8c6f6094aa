"""A folder as a target: what another user has put there is not followed or read, and nothing is lost on a full disk."""

import io
import os
import resource
import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from alfwatchd.alf.file_names import INFO, TABLES, ZIP
from alfwatchd.errors import TablesError, TargetError
from alfwatchd.publish import folder as folder_target
from alfwatchd.publish.folder import FolderTarget
from alfwatchd.publish.publication import publish
from alfwatchd.settings import Subset
from kit.published import LOCATION, entry, folder_reader, look, write_tables

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_what_is_there(places):
    out_dir, target = places
    outcome = publish(out_dir, entry(target), now=lambda: START)
    assert outcome.published
    assert (outcome.n_sessions, outcome.n_datasets) == (2, 4)
    name, date, subjects = look(folder_reader(target), LOCATION)
    assert (name, date, subjects) == (outcome.name, outcome.date, {"s1", "s2"})
    local = START.astimezone().replace(tzinfo=None)
    assert date == local.isoformat(sep=" ", timespec="minutes")
    assert (target / ZIP).read_bytes() == (target / TABLES / name / ZIP).read_bytes()
    assert (target / ZIP).stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("link", [TABLES, "mine", f"mine/{TABLES}"])
def test_a_link_that_another_user_has_put_there_is_not_followed(places, tmp_path, link):
    """A user who may write to a shared folder could otherwise make the daemon replace and remove files anywhere."""
    out_dir, target = places
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "old").mkdir(parents=True)
    (elsewhere / "empty").mkdir()
    (elsewhere / "old" / ZIP).write_bytes(b"not ours")
    (elsewhere / ZIP).write_bytes(b"not ours")
    (target / link).parent.mkdir(exist_ok=True)
    (target / link).symlink_to(elsewhere)
    mine = entry(target, keep_seconds=0, subset=Subset(tag="mine") if "mine" in link else Subset())
    for generation in (1, 2):
        write_tables(out_dir, generation, [f"s{generation}"])
        with pytest.raises(TargetError, match=rf"{target / link}: is not a folder, or is a link"):
            publish(out_dir, mine)
    place = FolderTarget(target, mine.subset.tag)
    with pytest.raises(TargetError, match="or is a link"):
        place.remove("old")
    found = {path.relative_to(elsewhere).as_posix() for path in elsewhere.rglob("*")}
    assert found == {ZIP, "old", "empty", f"old/{ZIP}"}
    assert (elsewhere / "old" / ZIP).read_bytes() == (elsewhere / ZIP).read_bytes() == b"not ours"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "socket"])
def test_what_is_no_file_is_replaced_and_not_read(places, tmp_path, kind):
    out_dir, target = places
    secret = tmp_path / "secret"
    secret.write_text('{"date_created": "2999-01-01 00:00"}')
    for name in (INFO, ZIP):
        match kind:
            case "pipe":
                os.mkfifo(target / name)
            case "socket":
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(str(target / name))
            case _:
                (target / name).symlink_to(secret if kind == "link" else target / name)
    publish(out_dir, entry(target), now=lambda: START)
    assert look(folder_reader(target), LOCATION)[1] < "2999"
    assert secret.read_text() == '{"date_created": "2999-01-01 00:00"}'


@contextmanager
def largest_file(n_bytes):
    """Let files grow no larger, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_not_kept_full_by_half_a_file(places):
    target = places[1]
    place = FolderTarget(target)
    with largest_file(1 << 16), pytest.raises(TargetError, match=r"File too large; check the target's folder"):
        place.create(ZIP, io.BytesIO(bytes(1 << 17)))
    assert [path.name for path in target.iterdir()] == [folder_target.LOCK_NAME]
    with largest_file(1 << 10), pytest.raises(TablesError, match="make room there, or set TMPDIR"):
        publish(places[0], entry(target))


def test_a_target_that_is_not_there_is_not_made(places, tmp_path):
    with pytest.raises(TargetError, match=r"not mounted; make it"):
        publish(places[0], entry(tmp_path / "away", subset=Subset(tag="t")))
    assert not (tmp_path / "away").exists()


def test_a_lock_that_another_holds_is_waited_for(places):
    out_dir, target = places
    place = FolderTarget(target)
    publish(out_dir, entry(target), place)
    write_tables(out_dir, 2, ["s3"])
    with place.lock():
        thread = threading.Thread(target=publish, args=(out_dir, entry(target), place))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert look(folder_reader(target), LOCATION)[2] == {"s1", "s2"}
    thread.join()
    assert look(folder_reader(target), LOCATION)[2] == {"s3"}
    assert folder_target.LOCK_NAME.startswith(".")


def test_a_lock_that_is_never_released_ends_with_an_error_that_names_it(places, monkeypatch):
    monkeypatch.setattr(folder_target, "LOCK_SECONDS", 0.1)
    with FolderTarget(places[1]).lock(), pytest.raises(TargetError, match=r"publishing.lock: another process holds"):
        publish(places[0], entry(places[1]))
