"""Prunes of real files over the API.

If one of these fails, a prune deletes a file that its plan does not name, or goes on when it must stop.
"""

import itertools
import json
import os
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from alfwatchd import errors, make_parquet_db
from alfwatchd.api import (
    PrunedNotice,
    RootCheckRequest,
    SnapshotRequest,
    SyncRequest,
    refuse,
)
from alfwatchd.errors import AlfwatchdError, RootOffline
from alfwatchd.prune import operations
from alfwatchd.service.once import look_once
from alfwatchd.web import (
    control_service,
)
from alfwatchd.web.root_header import encode_root
from kit.control import HOLD, WAIT_SECONDS, control_box, give, wait

pytestmark = pytest.mark.usefixtures("no_readers")


SPIKES, TRIALS = "s/2020-01-01/001/alf/spikes.times.npy", "s/2020-01-02/001/alf/trials.choice.npy"


KEPT = "s/2020-01-03/001/alf/spikes.times.npy"


def root_of(box):
    return encode_root(os.fsencode(box.settings.root)).encode()


@pytest.fixture
def data(tmp_path):
    """A root with three datasets in three sessions, and reference tables that know of one."""
    root, reference = tmp_path / "root", tmp_path / "reference"
    (root / KEPT).parent.mkdir(parents=True)
    (root / KEPT).write_text("kept")
    reference.mkdir()
    make_parquet_db(root, reference)
    for path in (SPIKES, TRIALS):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("spikes")
    return SimpleNamespace(root=root, reference=str(reference))


@contextmanager
def prune_box(data, answers=None, **flags):
    flags = {"root": str(data.root), "prune.enabled": True, "prune.max_fraction": 1.0, **flags}
    with control_box({SnapshotRequest: lambda _: look_once(box.settings), **(answers or {})}, **flags) as box:
        yield box


def test_a_prune_deletes_what_was_planned(data, caplog):
    caplog.set_level("INFO", "alfwatchd.web.control_service")
    with prune_box(data) as box:
        status, plan = box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True})
        assert (status, plan["applied"], plan["n_datasets"], plan["n_bytes"]) == (200, False, 3, 12)
        assert [(item["path"], item["file_size"]) for item in plan["files"]] == [(SPIKES, 6), (TRIALS, 6)]
        assert (data.root / SPIKES).exists()
        status, done = box.ask("POST", "/v1/prune/apply", {"plan_id": plan["plan_id"]})
        assert (status, done.pop("freed_at") is not None, plan.pop("freed_at")) == (200, True, None)
        assert done == plan | {"applied": True}
        assert [path.name for path in data.root.rglob("*.npy")] == ["spikes.times.npy"]
        assert (data.root / KEPT).exists()
        again, answer = box.ask("POST", "/v1/prune/apply", {"plan_id": plan["plan_id"]})
        assert (again, answer["error"]) == (400, "UsageError")
        wait(lambda: any(isinstance(message, PrunedNotice) for message in box.engine.taken))  # it follows the answer
        (notice,) = (message for message in box.engine.taken if isinstance(message, PrunedNotice))
    days = ("s/2020-01-01", "s/2020-01-02")
    assert set(notice.folders) == {"", "s", *(day + rest for day in days for rest in ("", "/001", "/001/alf"))}
    logged = [record.getMessage() for record in caplog.records]
    me = f"uid={os.getuid()} pid={os.getpid()}"
    assert any(line.startswith(f"dataset moved to trash path='{SPIKES}'") and me in line for line in logged)


def test_undo_and_empty_over_the_api(data):
    with prune_box(data) as box:
        plan_id = box.client.plan_prune(data.reference, newer=True).plan_id
        assert box.client.apply_prune(plan_id).freed_at
        (applied,) = box.client.list_plans().plans
        assert (applied.plan_id, applied.state, applied.n_files, applied.n_bytes) == (plan_id, "applied", 2, 12)
        undone = box.client.undo_prune(plan_id)
        assert (undone.action, undone.plans, undone.n_files, undone.complete) == ("undone", [plan_id], 2, True)
        assert (data.root / SPIKES).read_text() == "spikes"
        assert [plan.state for plan in box.client.list_plans().plans] == ["undone"]
        notices = [message for message in box.engine.taken if isinstance(message, PrunedNotice)]
        assert {"", "s", SPIKES.rpartition("/")[0]} <= set(notices[-1].folders)
        for what, body in (("undo", {"plan_id": plan_id}), ("empty", {"plan_id": plan_id})):
            status, answer = box.ask("POST", f"/v1/prune/{what}", body)
            assert (status, answer["error"], plan_id in answer["message"]) == (409, "PruneRefused", True)
        again = box.client.plan_prune(data.reference, newer=True).plan_id
        box.client.apply_prune(again)
        emptied = box.client.empty_trash()
        assert (emptied.action, emptied.plans, emptied.n_bytes, emptied.kept) == ("emptied", [again], 12, [])
        assert {plan.plan_id: plan.state for plan in box.client.list_plans().plans}[again] == "emptied"


def test_undo_and_empty_are_refused_while_the_root_is_offline(data):
    offline = RootOffline("the disk is away")
    with prune_box(data, {SnapshotRequest: offline, RootCheckRequest: offline}) as box:
        for what in ("undo", "empty"):
            assert box.ask("POST", f"/v1/prune/{what}", {"plan_id": "0" * 16})[1]["error"] == "RootOffline"


def test_a_plan_waits_for_changes_but_not_for_the_flush(data):
    with prune_box(data) as box:
        box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True})
        first = box.engine.taken[0]
    assert (type(first), first.flushed) == (SyncRequest, False)


def test_the_last_eight_plans_are_known(data):
    with prune_box(data) as box:
        ids = []
        for number in range(9):
            (data.root / SPIKES).write_text("x" * number)
            ids.append(box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True})[1]["plan_id"])
        assert len(set(ids)) == 9
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": ids[0]})[0] == 400
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": ids[1]})[0] == 200


def test_fewer_large_plans_are_known(data, monkeypatch):
    monkeypatch.setattr(control_service, "MAX_PLANNED_FILES", 5)
    with prune_box(data) as box:
        ids = []
        for number in range(3):  # of two files each
            (data.root / SPIKES).write_text("x" * number)
            ids.append(box.client.plan_prune(data.reference, newer=True).plan_id)
        monkeypatch.setattr(control_service, "MAX_PLANNED_FILES", 1)
        assert [box.ask("POST", "/v1/prune/apply", {"plan_id": each})[0] for each in ids] == [400, 200, 200]
        (data.root / SPIKES).parent.mkdir(parents=True)
        (data.root / SPIKES).write_text("one alone may be larger")
        (data.root / TRIALS).parent.mkdir(parents=True)
        (data.root / TRIALS).write_text("")
        plan = box.client.plan_prune(data.reference, newer=True)
        assert len(box.client.apply_prune(plan.plan_id).files) == 2


def test_what_changed_since_the_plan_is_left(data):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        (data.root / SPIKES).write_text("new spikes")
        done = box.client.apply_prune(plan.plan_id)
    assert [item.path for item in done.files] == [TRIALS]
    assert (done.kept[0].path, done.kept[0].reason) == (SPIKES, "has changed since the plan")
    assert (data.root / SPIKES).read_text() == "new spikes"


REFUSED = [
    ({"reference": "/nowhere"}, {}, "no reference tables"),
    ({"max_fraction": 0.5}, {}, "2 of 3 datasets"),
    ({}, {"prune.max_fraction": 0.1}, "2 of 3 datasets"),
]


@pytest.mark.parametrize(("body", "flags", "text"), REFUSED)
def test_refused_plans(data, body, flags, text):
    with prune_box(data, **flags) as box:
        status, answer = box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True} | body)
        assert (status, answer["error"], text in answer["message"]) == (409, "PruneRefused", True)


def fifos(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        os.mkfifo(folder / name)


def endless(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        (folder / name).symlink_to("/dev/zero")


def folders(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        (folder / name).mkdir()


def huge(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        with open(folder / name, "wb") as file:
            file.truncate(1 << 40)


def huge_footer(folder):
    """Says that its last two gigabytes describe it."""
    for name in ("sessions.pqt", "datasets.pqt"):
        with open(folder / name, "wb") as file:
            file.seek((1 << 40) - 8)
            file.write((0x7FFFFFFF).to_bytes(4, "little") + b"PAR1")


def looping(folder):
    (folder / "sessions.pqt").symlink_to("sessions.pqt")


@pytest.mark.parametrize("make", [fifos, endless, folders, huge, huge_footer, looping], ids=lambda make: make.__name__)
def test_references_that_are_not_tables_are_refused(data, tmp_path, make):
    folder = tmp_path / "odd"
    folder.mkdir()
    make(folder)
    with prune_box(data) as box:
        status, answer = box.ask("POST", "/v1/prune/plan", {"reference": str(folder)})
    assert (status, answer["error"]) == (409, "PruneRefused")
    assert str(folder) in answer["message"]


@pytest.mark.parametrize("folder", ["/dev", "/proc/self/fd/0", "/" + "x" * 300, "/a" * 2000, "/x\ny"])
def test_references_that_are_not_folders_are_refused(data, folder):
    with prune_box(data) as box:
        status, answer = box.ask("POST", "/v1/prune/plan", {"reference": folder})
    assert (status, answer["error"]) == (409, "PruneRefused")


def test_reference_tables_that_give_no_answer_do_not_delay_others(data, monkeypatch):
    """As on a network mount that is away. Others are told so, and the daemon can end."""
    reached = threading.Event()
    monkeypatch.setattr(operations, "plan_prune", lambda *_: reached.wait(WAIT_SECONDS))
    try:
        with prune_box(data) as box:
            asked = [box.connect() for _ in range(4)]
            for each in asked:
                each.sendall(b"POST /v1/prune/plan HTTP/1.1\r\nHost: d\r\nAlfwatchd-Root: %b\r\n\r\n" % root_of(box))
            wait(lambda: sum(thread.name == "request" for thread in threading.enumerate()) == 4)
            with pytest.raises(errors.Busy, match="4 prunes are being planned already"):
                box.client.plan_prune(data.reference, newer=True)
            assert box.is_alive()
            for each in asked:
                each.close()
        assert not reached.is_set()  # the server has ended before
    finally:
        reached.set()


def test_nothing_is_planned_or_deleted_while_a_part_cannot_be_read(data):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        box.engine.answers[RootCheckRequest] = errors.PruneRefused("s/2020-01-05: cannot be read now")
        for path, body in (
            ("/v1/prune/plan", {"reference": data.reference, "newer": True}),
            ("/v1/prune/apply", {"plan_id": plan.plan_id}),
        ):
            status, answer = box.ask("POST", path, body)
            assert (status, answer["error"], "s/2020-01-05" in answer["message"]) == (409, "PruneRefused", True)
            assert f"root {data.root}, reference {data.reference}" in answer["message"]
        box.engine.answers[RootCheckRequest] = RootOffline("the root is gone")
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": plan.plan_id})[0] == 503
    assert (data.root / SPIKES).exists()


@contextmanager
def apply_held(box, data):
    """Begin a prune that waits for the engine before its second session; yields the message, and the answer's list."""
    plan = box.client.plan_prune(data.reference, newer=True)
    n_asked = itertools.count(1)
    # once before the prune, then before each session
    box.engine.answers[RootCheckRequest] = lambda _: HOLD if next(n_asked) == 3 else 0
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(box.ask("POST", "/v1/prune/apply", {"plan_id": plan.plan_id})), daemon=True
    )
    asking.start()
    held = box.engine.held.get(timeout=WAIT_SECONDS)
    yield held, answers
    asking.join()


def stopped_half_way(data, answers, why):
    ((status, done),) = answers
    assert (status, [item["path"] for item in done["files"]]) == (200, [SPIKES])
    (note,) = done["notes"]
    assert note.startswith("stopped half way: ")
    assert why in note
    assert not (data.root / SPIKES).exists()
    assert (data.root / TRIALS).exists()
    return True


CHECKS = [
    (RootOffline("the root is gone"), "the root is gone"),
    (errors.PruneRefused("s/2020-01-05: cannot be read now"), "s/2020-01-05: cannot be read now"),
    (1, "mounts at or below the root have changed since the plan"),
]


@pytest.mark.parametrize(("answer", "why"), CHECKS)
def test_a_prune_stops_when_the_root_is_not_what_it_was(data, answer, why):
    with prune_box(data) as box:
        with apply_held(box, data) as (held, answers):
            give(held, answer)
        assert stopped_half_way(data, answers, why)


def test_a_prune_stops_when_the_daemon_does(data):
    with prune_box(data) as box:
        with apply_held(box, data) as (held, answers):
            box.engine.stop_taking()
            refuse(held.reply, AlfwatchdError("the daemon is stopping"))  # as the inbox does for those untaken
            box.engine.inbox.close()
            box.server.close()
        assert stopped_half_way(data, answers, "the daemon is stopping")


def test_one_prune_at_a_time(data):
    with prune_box(data) as box:
        with apply_held(box, data) as (held, answers):
            other = box.client.plan_prune(data.reference, newer=True, keep_empty_sessions=True)
            status, answer = box.ask("POST", "/v1/prune/apply", {"plan_id": other.plan_id})
            assert (status, answer["error"]) == (409, "Busy")
            give(held, 0)
        ((status, done),) = answers
        assert (status, len(done["files"]), done["notes"]) == (200, 2, [])


def test_a_prune_stops_when_its_client_disconnects(data, caplog):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        n_asked = itertools.count(1)
        box.engine.answers[RootCheckRequest] = lambda _: HOLD if next(n_asked) == 3 else 0
        body = json.dumps({"plan_id": plan.plan_id}).encode()
        head = b"POST /v1/prune/apply HTTP/1.1\r\nHost: d\r\nAlfwatchd-Root: %b\r\nContent-Length: %d\r\n\r\n"
        with box.connect() as connection:
            connection.sendall(head % (root_of(box), len(body)) + body)
            held = box.engine.held.get(timeout=WAIT_SECONDS)
        wait(lambda: not box.server.connections)
        give(held, 0)
        said = f"prune done plan={plan.plan_id} deleted=1 kept=0 bytes=6 "
        why = " stopped='the client that asked for the prune has gone' by "
        wait(lambda: any(line.startswith(said) and why in line for line in caplog.messages))
        assert not (data.root / SPIKES).exists()
        assert (data.root / TRIALS).exists()
        wait(lambda: any(isinstance(message, PrunedNotice) for message in box.engine.taken))
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": plan.plan_id})[0] == 400  # it was used up
        again = box.client.plan_prune(data.reference, newer=True)
        assert [item.path for item in box.client.apply_prune(again.plan_id).files] == [TRIALS]


def test_a_prune_goes_on_when_its_client_closes_its_sending_side(data):
    with prune_box(data) as box:
        body = json.dumps({"plan_id": box.client.plan_prune(data.reference, newer=True).plan_id}).encode()
        head = b"POST /v1/prune/apply HTTP/1.1\r\nHost: d\r\nAlfwatchd-Root: %b\r\nContent-Length: %d\r\n\r\n"
        answer = box.exchange(head % (root_of(box), len(body)) + body, half_close=True)
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["files"]) == 2


def test_a_prune_copies_the_tables_only_once(data):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        box.client.apply_prune(plan.plan_id)
        kinds = [type(message) for message in box.engine.taken]
    assert kinds.count(SnapshotRequest) == 1  # from which the plan was made
    assert kinds.count(RootCheckRequest) == 1 + 2 + 1 + 2  # before each of the two sessions, and before all


def test_status_is_answered_while_a_prune_runs(data):
    with prune_box(data) as box, apply_held(box, data) as (held, _):
        assert box.is_alive()
        give(held, RootOffline("enough"))
