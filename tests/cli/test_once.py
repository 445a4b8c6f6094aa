"""`alfwatchd --once`: its summary and exit code. `tests/system` runs it on many trees."""

from __future__ import annotations

import gc
import json
import shutil

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


def test_a_program_gets_the_summary_as_one_value(places, run, tmp_path):
    """Also what the run complains of, and each target with what became of it."""
    (tmp_path / "target").mkdir()
    (tmp_path / "root/clusters.pqt").touch()
    config = tmp_path / "c.toml"
    targets = [f'[[publish]]\ntarget = "{tmp_path / name}"' for name in ("target", "none")]
    config.write_text("\n".join(targets))
    ended = run("--once", *places, f"--config={config}", "--json")
    told = json.loads(ended.out)
    assert (told["n_sessions"], told["n_datasets"], told["added"], told["held"]) == (6, 12, 12, "")
    assert [each["kind"] for each in told["problems"]] == ["foreign_table"]
    good, bad = told["published"]
    assert (good["target"], good["published"], good["error"]) == (str(tmp_path / "target"), True, None)
    assert (bad["published"], bad["generation"]) == (False, None)
    assert "not a folder" in bad["error"]
    assert ended.code == 1
    assert str(tmp_path / "none") in json.loads(ended.err.splitlines()[-1])["message"]


def test_a_root_in_which_nothing_is_found_fails(tmp_path, run):
    """A flat tree, or a wrong root, gave empty tables and exit code 0; the mistake showed only in ONE."""
    file = tmp_path / "flat/Cori_2016-12-14/spikes.times.npy"
    file.parent.mkdir(parents=True)
    file.touch()
    places = [f"--state-dir={tmp_path / 'state'}", "--scan-workers=1"]
    ended = run("--once", f"--root={tmp_path / 'flat'}", *places)
    assert ended.code == 1
    assert ended.err.startswith("alfwatchd: no session found in a root that is not empty: the name 'Cori_2016-12-14'")
    assert (tmp_path / "flat/datasets.pqt").exists()
    (tmp_path / "empty").mkdir()
    assert run("--once", f"--root={tmp_path / 'empty'}", f"--state-dir={tmp_path / 'other'}").code == 0


def test_two_roots_do_not_share_an_output_folder(tmp_path, run):
    """The lab wants both servers in one pair of tables, and the second run would throw the first one away."""
    one, other, out_dir = tmp_path / "one", tmp_path / "other", tmp_path / "tables"
    make_small_tree(one)
    shutil.copytree(one, other)  # so that the data look like those of the first root
    out_dir.mkdir()
    places = [f"--out-dir={out_dir}", f"--state-dir={tmp_path / 'state'}", "--scan-workers=1"]
    assert run("--once", f"--root={one}", *places).code == 0
    before = (out_dir / "datasets.pqt").read_bytes()
    refused = run("--once", f"--root={other}", *places)
    assert refused.code == 78
    assert f"holds the tables of another root, {one}, with 6 sessions" in refused.err
    assert (out_dir / "datasets.pqt").read_bytes() == before
    (tmp_path / "alias").symlink_to(one)
    assert run("--once", f"--root={tmp_path / 'alias'}", *places).code == 0
    assert run("--once", f"--root={other}", *places, "--accept-root").code == 0
    assert run("--once", f"--root={other}", *places).code == 0
    assert run("--once", f"--root={one}", *places).code == 78
    other.rename(tmp_path / "moved")
    assert run("--once", f"--root={tmp_path / 'moved'}", *places).code == 0  # the guard knows it again


def test_a_broken_file_of_another_program_is_told(places, run, tmp_path):
    (tmp_path / "root/clusters.pqt").touch()
    ended = run("--once", *places)
    assert ended.code == 0
    assert "problem: clusters.pqt: an empty file, and One opens no tables" in ended.err


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
