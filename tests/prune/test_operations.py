"""What is refused before anything is planned, and what stops a prune without a daemon, so that no data are lost.

What a plan holds is tested in test_plan.py, test_unlisted.py and test_candidates.py; what becomes of it, in
test_executor.py.
"""

from contextlib import closing
from dataclasses import replace

import pytest

from alfwatchd.errors import PruneRefused, RootOffline
from alfwatchd.prune import operations
from alfwatchd.prune.operations import PruneOptions, RootCheck, plan_prune
from alfwatchd.prune.plan import OWN_TABLES
from alfwatchd.settings import Settings
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot, TablesView
from kit.prune import CLUSTERS, S1, S2, SPIKES, plan_for, take_snapshot, write
from kit.published import write_tables
from kit.rows import folder_rows
from kit.trash import no_log


@pytest.fixture
def settings(tmp_path):
    for name in ("root", "out", "reference"):
        (tmp_path / name).mkdir()
    write(tmp_path / "root", f"{S1}/{SPIKES}", f"{S2}/{CLUSTERS}")
    return Settings(
        root=tmp_path / "root", out_dir=tmp_path / "out", state_dir=tmp_path / "state", socket=tmp_path / "socket"
    )


@pytest.fixture
def view(settings):
    return TablesView(take_snapshot(settings.root), ())


def test_rows_that_are_held_refuse_a_prune(settings, view):
    with pytest.raises(PruneRefused, match="nothing is deleted while rows are held: another disk"):
        plan_prune(replace(view, held="another disk"), settings, PruneOptions())


def test_a_folder_that_cannot_be_read_refuses_a_prune(settings, view):
    with pytest.raises(PruneRefused, match=r"s/2020-01-01: 1 folders .* make them readable"):
        plan_prune(replace(view, unsure=("s/2020-01-01",)), settings, PruneOptions())


def test_without_a_reference_nothing_goes_and_the_reply_says_why(settings, view):
    plan = plan_prune(view, settings, PruneOptions())
    assert (plan.reference, plan.files, plan.folders, plan.n_datasets) == (OWN_TABLES, (), (), 2)
    reply = operations.preview(settings, plan, lambda: None)
    assert (reply.n_datasets, reply.files, len(reply.notes)) == (2, [], 1)
    assert "name tables that list what must stay with --reference" in reply.notes[0]


@pytest.mark.parametrize("how", ["the folder", "a link to it", "a link to one table"])
def test_the_daemons_own_tables_are_no_reference(settings, view, tmp_path, how):
    write_tables(settings.out_dir, 1, ["s1"])
    folder = settings.out_dir
    if how == "a link to it":
        folder = tmp_path / "link"
        folder.symlink_to(settings.out_dir)
    elif how == "a link to one table":
        folder = tmp_path / "reference"
        (folder / "datasets.pqt").symlink_to(settings.out_dir / "datasets.pqt")
    with pytest.raises(PruneRefused, match="copy the tables to a folder of their own first"):
        plan_prune(view, settings, PruneOptions(reference=folder))


def test_a_refusal_of_the_reference_names_root_and_folder(settings, view, tmp_path):
    with pytest.raises(PruneRefused, match=f"prune of {settings.root} by {tmp_path}/reference: .* no reference tables"):
        plan_prune(view, settings, PruneOptions(reference=tmp_path / "reference"))


def test_links_are_not_counted(settings):
    signature = pack_signature(10, 1, 2, False), pack_signature(1000, 1, 3, True)
    sessions = [
        Session(S1, (folder_rows("alf", {"a.b.c": signature[0], "d.e.f": signature[1]}),)),
        Session(S2, (folder_rows("alf", {"a.b.c": signature[0]}),), is_link=True),
    ]
    view = TablesView(Snapshot(1, {session.path: session for session in sessions}), ())
    assert operations.count(view) == (1, 10)


def test_a_plan_that_is_applied_goes_into_the_trash_and_ends_with_one_line(settings):
    lines = []
    plan = plan_for(settings.root)
    reply = operations.apply(settings, plan, lambda: None, no_log, log_end=lines.append)
    assert (reply.applied, reply.complete, len(reply.files)) == (True, True, 2)
    assert reply.freed_at is not None
    (line,) = lines
    assert line.startswith(f"prune done plan={plan.plan_id} deleted=2 kept=0 bytes={plan.n_bytes} ")


def test_a_plan_that_is_stopped_says_so(settings):
    def stop():
        raise RootOffline("the root is away")

    lines = []
    reply = operations.apply(settings, plan_for(settings.root), stop, lines.append)
    assert (reply.complete, reply.files, reply.notes) == (False, [], ["stopped half way: the root is away"])
    assert lines[-1].endswith("stopped='the root is away'")


def test_another_folder_in_place_of_the_root_stops_a_prune(settings, tmp_path):
    with closing(RootCheck(settings.root)) as check:
        check.check()
        settings.root.rename(tmp_path / "moved")
        settings.root.mkdir()
        with pytest.raises(RootOffline, match="something else is there now"):
            check.check()
        settings.root.rmdir()
        (tmp_path / "moved").rename(settings.root)
        with pytest.raises(RootOffline):  # what was seen once is not forgotten
            check.check()
    settings.root.rename(tmp_path / "moved")
    with pytest.raises(RootOffline, match="cannot be read"):
        RootCheck(settings.root)
