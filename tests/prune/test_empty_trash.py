"""Emptying the trash deletes what is due and nothing else; a file that a program still writes to stays."""

from pathlib import Path

import pytest

from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused, RootOffline
from alfwatchd.prune import empty_trash
from kit.prune import S1, SPIKES, no_log, plan_for
from kit.trash import FILES, NOW, WEEK, make_root, move, undo

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root")


def test_a_trash_that_is_due_is_emptied_and_no_other(root):
    first = plan_for(root, [path for path in FILES if not path.startswith(S1)])
    move(root, first, now=NOW)
    second = plan_for(root)
    move(root, second, now=NOW + 100)
    lines = []
    assert empty_trash.empty_due(root, NOW + WEEK - 1, lines.append).n_files == 0
    done = empty_trash.empty_due(root, NOW + WEEK, lines.append)
    assert (done.n_files, done.plans, done.kept, len(lines)) == (3, [first.plan_id], [], 3)
    assert [each.name for each in empty_trash.list_trashed(root)] == [second.plan_id]
    with pytest.raises(PruneRefused, match="holds nothing of plan"):
        undo(root, first)
    undo(root, second)
    assert {path for path in FILES if (root / path).exists()} == {path for path in FILES if not path.startswith(S1)}


def test_empty_takes_one_plan_or_all(root):
    first = plan_for(root, [path for path in FILES if not path.startswith(S1)])
    move(root, first)
    second = plan_for(root)
    move(root, second)
    survey = {each.name: (each.n_files, each.freed_at) for each in empty_trash.list_trashed(root)}
    assert survey == {first.plan_id: (3, NOW + WEEK), second.plan_id: (9, NOW + WEEK)}
    done = empty_trash.empty(root, first.plan_id, no_log)
    assert (done.n_files, done.n_bytes, done.plans) == (3, first.n_bytes, [first.plan_id])
    with pytest.raises(PruneRefused):
        empty_trash.empty(root, first.plan_id, no_log)
    assert empty_trash.empty(root, None, no_log).plans == [second.plan_id]
    assert empty_trash.empty(root, None, no_log).plans == []
    assert not (root / TRASH).exists()


def test_a_file_that_was_written_to_since_its_move_is_not_emptied(root):
    plan = plan_for(root)
    with (root / S1 / SPIKES).open("a") as writer:
        move(root, plan)
        writer.write("the last words of a writer")
    done = empty_trash.empty_due(root, NOW + WEEK, no_log)
    assert [(item.path, item.reason) for item in done.kept] == [(f"{S1}/{SPIKES}", empty_trash.WRITTEN)]
    (left,) = empty_trash.list_trashed(root)
    assert (left.n_files, left.n_written, done.plans, done.n_files) == (1, 1, [], len(FILES) - 1)
    assert [item.reason for item in empty_trash.empty(root, plan.plan_id, no_log).kept] == [empty_trash.WRITTEN]
    undo(root, plan)
    assert (root / S1 / SPIKES).read_text().endswith("the last words of a writer")


def test_a_missing_root_is_told():
    with pytest.raises(RootOffline):
        empty_trash.undo(Path("/nonexistent/root"), "0" * 16, no_log)


def test_a_damaged_plan_keeps_no_other_one_in_the_trash(root):
    first = plan_for(root, [path for path in FILES if not path.startswith(S1)])
    move(root, first)
    second = plan_for(root)
    move(root, second)
    manifest = root / TRASH / min(first.plan_id, second.plan_id) / "manifest"  # the one that comes first
    whole = manifest.read_bytes()
    manifest.write_bytes(b"damaged")
    done = empty_trash.empty(root, None, no_log)
    assert ([item.path for item in done.kept], len(done.plans)) == ([f"{TRASH}/{manifest.parent.name}"], 1)
    manifest.write_bytes(whole)
    assert empty_trash.empty(root, None, no_log).kept == []
