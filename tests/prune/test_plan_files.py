"""What became of each plan can be looked up later, and the state folder does not grow without end."""

import json
import os

import pytest

from alfwatchd.api import PruneItem, PruneReply
from alfwatchd.prune import plan_files
from alfwatchd.prune.plan import PrunePlan
from alfwatchd.prune.plan_files import PlanRecords, iso


def plan(plan_id):
    return PrunePlan(plan_id, "/root", "/reference", "2026-01-01T10:00:00+00:00", 7, 10, 1000, (), ())


def reply(plan_id, n_files=2):
    files = [PruneItem(f"s/2020-01-01/001/a.b{number}.npy", 5) for number in range(n_files)]
    told = ("/root", "/reference", "2026-01-01T10:00:00+00:00", 7)
    return PruneReply(plan_id, False, *told, 10, 1000, files, [], 5 * n_files, [], {}, [])


def test_a_plan_is_noted_with_what_became_of_it(tmp_path):
    records = PlanRecords(tmp_path / "state")
    assert records.list() == []
    records.note_plan(plan("a" * 16), reply("a" * 16))
    records.note_plan(plan("b" * 16), reply("b" * 16))
    (_, planned) = records.list()
    assert (planned.plan_id, planned.state, planned.n_files, planned.n_bytes) == ("a" * 16, "planned", 2, 10)
    assert (planned.root, planned.reference, planned.reference_date) == (
        "/root",
        "/reference",
        "2026-01-01T10:00:00+00:00",
    )
    records.note_result(plan("a" * 16), reply("a" * 16))
    records.note_state("a" * 16, "undone")
    records.note_state("c" * 16, "undone")
    undone, other = records.list()
    assert (undone.plan_id, undone.state, undone.made_at, other.state) == (
        "a" * 16,
        "undone",
        planned.made_at,
        "planned",
    )
    _, details = (tmp_path / "state/plans" / f"{'a' * 16}.json").read_text().splitlines()
    assert {key: len(value["files"]) for key, value in json.loads(details).items()} == {"plan": 2, "result": 2}


def test_only_so_many_plans_and_bytes_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_files, "MOST_PLANS", 5)
    records = PlanRecords(tmp_path)
    for number in range(8):
        plan_id = f"{number:016x}"
        records.note_plan(plan(plan_id), reply(plan_id))
        os.utime(tmp_path / "plans" / f"{plan_id}.json", (number, number))
    assert [record.plan_id for record in records.list()] == [f"{number:016x}" for number in (7, 6, 5, 4, 3)]
    monkeypatch.setattr(plan_files, "MOST_BYTES", 2000)
    records.note_plan(plan("f" * 16), reply("f" * 16, n_files=20))
    assert [record.plan_id for record in records.list()] == ["f" * 16]
    monkeypatch.setattr(plan_files, "LONGEST_PLAN", 1000)
    records.note_plan(plan("e" * 16), reply("e" * 16, n_files=20))
    latest = records.list()[0]
    assert (latest.plan_id, latest.n_files) == ("e" * 16, 20)
    assert (tmp_path / "plans" / f"{'e' * 16}.json").read_text().endswith("\n{}\n")


@pytest.mark.parametrize("damage", [b"", b"[" * 100_000, b"{}\n", b'{"plan_id": 1}\n', b"\xff\xfe\n", b"null\nnull\n"])
def test_damaged_records_are_left_out(tmp_path, damage):
    records = PlanRecords(tmp_path)
    records.note_plan(plan("a" * 16), reply("a" * 16))
    (tmp_path / "plans" / f"{'b' * 16}.json").write_bytes(damage)
    assert [record.plan_id for record in records.list()] == ["a" * 16]
    records.note_state("b" * 16, "undone")
    records.note_result(plan("b" * 16), reply("b" * 16))
    assert len(records.list()) == 2


def test_what_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "plans").write_text("in the way")
    PlanRecords(tmp_path).note_plan(plan("a" * 16), reply("a" * 16))
    assert "a prune plan cannot be noted" in caplog.text
    assert PlanRecords(tmp_path).list() == []


def test_times():
    assert iso(0.0) == "1970-01-01T00:00:00+00:00"
    assert iso(None) is None
    assert iso(1e20).startswith("9999")
