"""`alfwatchd --once`: its summary and exit code. `tests/system` runs it on many trees."""

from __future__ import annotations

import gc

import pytest

from alfwatchd.api import TrashReply
from alfwatchd.cli import once
from alfwatchd.errors import TargetError
from alfwatchd.prune import trash_jobs
from alfwatchd.publish import publication
from kit.program import make_small_tree


@pytest.fixture(autouse=True)
def garbage():
    """The command disables the garbage collector, as the process ends with it; these tests go on."""
    yield
    gc.enable()


@pytest.fixture
def places(tmp_path):
    root = make_small_tree(tmp_path / "root")
    return [f"--root={root}", f"--state-dir={tmp_path / 'state'}", "--scan-workers=1"]


def test_it_writes_the_tables_and_a_summary(places, run, tmp_path):
    """The last line of a cron job's mail says whether all went well."""
    ended = run("--once", *places)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("6 sessions, 12 datasets, ")
    assert "; 12 added, 0 changed, 0 removed; 0 problems; " in ended.out
    assert (tmp_path / "root/datasets.pqt").exists()


def test_one_target_that_fails_does_not_keep_tables_from_the_others(places, run, tmp_path, monkeypatch):
    """A bucket that is away must not make the copies in folders old; and the failure must be seen."""
    config = tmp_path / "c.toml"
    config.write_text("".join(f"[[publish]]\ntarget = '{tmp_path / name}'\n" for name in ("bad", "good")))
    publish = publication.publish_surely

    def publish_one(out_dir, entry):
        if entry.target.endswith("bad"):
            raise TargetError("no such bucket")
        return publish(out_dir, entry)

    monkeypatch.setattr(publication, "publish_surely", publish_one)
    (tmp_path / "good").mkdir()
    ended = run("--once", *places, f"--config={config}")
    assert ended.code == 1
    assert f"the tables are written, but not published to {tmp_path / 'bad'}: no such bucket" in ended.err
    assert f"published to {tmp_path / 'good'}: generation " in ended.out


def test_a_database_that_cannot_be_read_is_a_failure_of_the_command(places, run, tmp_path):
    # It ended with 0, and the tables had ids of their own: the next good run changed every one of them.
    config = tmp_path / "c.toml"
    config.write_text(f"[adopt]\nsource = '{tmp_path / 'away'}'\n")
    ended = run("--once", *places, f"--config={config}")
    assert ended.code == 1
    assert "the tables are written without a look at the database: " in ended.err
    assert f"{tmp_path / 'away'}: is not there; check adopt.source" in ended.err
    assert "problem: " not in ended.err
    assert (tmp_path / "root/datasets.pqt").exists()


def test_the_trash_is_emptied_when_due(places, run, monkeypatch):
    """A root without a daemon would otherwise never get its space back."""
    asked = []

    def empty_due(settings, _):
        asked.append(settings.root)
        return TrashReply("emptied", [], 0, 0, 0, [], complete=True)

    monkeypatch.setattr(trash_jobs, "empty_due", empty_due)
    run("--once", *places)
    assert len(asked) == 1


LINES = [
    (("/pub", "", "3-abc", "2024", True), "published to /pub: generation 3-abc of 2024"),
    (("s3://b/p", "mine", "3-abc", "2024", False), "unchanged at s3://b/p, tag mine: generation 3-abc of 2024"),
]


@pytest.mark.parametrize(("values", "line"), LINES)
def test_a_publication_is_one_line(values, line):
    """The user sees which tables the readers have now."""
    *others, is_new = values
    assert once.published_line(*others, is_new=is_new) == line
