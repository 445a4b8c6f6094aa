"""Undo, empty and the list of plans as a person asks for them: the reply and the list say what became of a plan."""

import time

import pytest

from alfwatchd.errors import UsageError
from alfwatchd.prune import operations, trash_jobs
from alfwatchd.settings import Settings
from kit.prune import S1, plan_for
from kit.trash import FILES, make_root, no_log


@pytest.fixture
def settings(tmp_path):
    make_root(tmp_path / "root")
    places = {name: tmp_path / name for name in ("root", "out_dir", "state_dir", "socket")}
    return Settings(prune={"trash_seconds": 1000}, **places)


@pytest.fixture
def plan(settings):
    made = plan_for(settings.root)
    operations.preview(settings, made, lambda: None)
    operations.apply(settings, made, lambda: None, no_log)
    return made


def states(settings):
    return {record.plan_id: record.state for record in trash_jobs.list_plans(settings).plans}


def test_what_is_undone_is_told_and_noted(settings, plan):
    assert states(settings) == {plan.plan_id: "applied"}
    lines = []
    reply, changed = trash_jobs.undo(settings, plan.plan_id, lines.append)
    assert (reply.action, reply.plans, reply.n_files, reply.kept, reply.complete) == (
        "undone", [plan.plan_id], len(FILES), [], True)  # fmt: skip
    assert {"", "s", S1, f"{S1}/alf"} <= set(changed), "the daemon looks at all folders in which something is back"
    assert f"prune undone root='{settings.root}' plan={plan.plan_id} files={len(FILES)} kept=0" in lines[-1]
    assert states(settings) == {plan.plan_id: "undone"}


def test_an_undo_that_leaves_something_is_not_complete(settings, plan):
    (settings.root / S1).mkdir(parents=True)
    (settings.root / FILES[2]).write_text("another one")
    reply, _ = trash_jobs.undo(settings, plan.plan_id, no_log)
    assert (reply.plans, reply.complete) == ([], False)
    assert [item.path for item in reply.kept] == [FILES[2]]
    assert states(settings) == {plan.plan_id: "applied"}


def test_what_is_emptied_is_told_and_noted(settings, plan):
    lines = []
    assert trash_jobs.empty_due(settings, lines.append).n_files == 0
    assert lines == []
    reply = trash_jobs.empty_due(settings, lines.append, time.time() + 2000)
    assert (reply.action, reply.plans, reply.n_files) == ("emptied", [plan.plan_id], len(FILES))
    assert lines[-1].startswith(f"trash emptied root='{settings.root}' plans={plan.plan_id} files={len(FILES)}")
    assert states(settings) == {plan.plan_id: "emptied"}
    assert trash_jobs.empty(settings, None, no_log).plans == []


@pytest.mark.parametrize("plan_id", ["", "..", "x" * 16, "0123456789abcdef-2", "../0123456789abcdef"])
def test_what_is_no_id_of_a_plan_is_refused(settings, plan_id):
    for ask in (trash_jobs.undo, trash_jobs.empty):
        with pytest.raises(UsageError, match="alfwatchd prune --list"):
            ask(settings, plan_id, no_log)
