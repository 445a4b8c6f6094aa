"""What a person reads of a prune."""

from __future__ import annotations

from dataclasses import replace

from alfwatchd.api import PlanRecord, PlansReply, PruneItem, PruneReply, TrashReply
from alfwatchd.cli.prune_output import plan_lines, prune_lines, trash_lines

PLAN = PruneReply(
    plan_id="abc", applied=False, root="/data", reference="/ref", reference_date="2024-01-01", reference_generation=7,
    n_datasets=10, n_bytes_on_disk=1000, files=[PruneItem("a.b.npy", 5)], folders=[PruneItem("s", None)], n_bytes=5,
    kept=[PruneItem("c.d.npy", 6, "newer than the reference")], n_kept={"newer than the reference": 1}, notes=["look"],
)  # fmt: skip
SUM = (
    "would go: 1 files and 1 folders, 5 B, of 10 datasets of /data; reference: /ref (of 2024-01-01, generation 7); plan"
)


def test_a_plan_names_each_file_that_would_go_or_stay():
    """A user checks the list before anything is deleted."""
    assert prune_lines(PLAN) == [
        "would go: a.b.npy (5 B)",
        "would go: s/",
        "kept: c.d.npy: newer than the reference",
        "note: look",
        f"{SUM} abc",
        "nothing was touched; add --apply to carry this out",
    ]


def test_what_was_moved_says_how_to_bring_it_back():
    """Within the days of the trash, a mistake can be undone."""
    lines = prune_lines(replace(PLAN, applied=True, freed_at="2024-03-09T00:00:00+00:00"))
    assert lines[0] == "moved to trash: a.b.npy (5 B)"
    assert lines[-2:] == [
        "5 B moved, freed on 9 Mar; free it now: alfwatchd prune --empty-trash abc",
        "bring it back: alfwatchd prune --undo abc",
    ]


def test_what_was_deleted_at_once_promises_no_way_back():
    """Without a trash there is nothing to undo."""
    text = "\n".join(prune_lines(replace(PLAN, applied=True)))
    assert "deleted: a.b.npy (5 B)" in text
    assert "undo" not in text


def test_a_long_list_is_cut_and_counted():
    """A million lines of kept files would hide the few that go."""
    kept = [PruneItem(f"{number}.b.npy", 1, "newer than the reference") for number in range(250)]
    lines = prune_lines(replace(PLAN, kept=kept, n_kept={"newer than the reference": 5000}))
    assert sum(line.startswith("kept: ") for line in lines) == 101
    assert "kept: 5000 in all: newer than the reference" in lines
    assert "note: alfwatchd prune --json lists more of what is kept" in lines


def test_the_trash():
    """The user sees how much is back, or free, and what is not."""
    reply = TrashReply("undone", ["abc"], 2, 1, 30, [PruneItem("a.b.npy", 3, "is there already")], complete=False)
    assert trash_lines(reply) == [
        "kept: a.b.npy: is there already",
        "2 files and 1 folders, 30 B, brought back; nothing is left there of plan abc",
    ]
    assert trash_lines(TrashReply("emptied", [], 0, 0, 0, [], complete=True)) == [
        "0 files, 0 B, deleted from the trash"
    ]


def test_plans():
    """The list is where a user finds the id for --undo."""
    plan = PlanRecord("abc", "applied", "2024-01-01T00:00:00", "2024-01-02T03:04:05.67+00:00", "/data", "/ref", "", 1,
                      2, 3000, 4, "2024-01-09T00:00:00+00:00")  # fmt: skip
    assert plan_lines(PlansReply([plan])) == [
        "abc  applied  2024-01-02T03:04:05Z  1 files, 2 folders, 3.0 kB, 4 kept; root /data; reference /ref; "
        "freed on 9 Jan"
    ]
    assert plan_lines(PlansReply([])) == ["no plans are known here"]
