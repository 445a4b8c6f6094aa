"""Answers as people read them."""

from __future__ import annotations

from datetime import datetime

from alfwatchd.api import AdoptStatus, PlansReply, PruneReply, Status, TargetStatus, TrashReply

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_MOST_LINES = 100
"""Of files that are kept, one each."""


def status_lines(status: Status) -> list[str]:
    """Return what the daemon knows, line by line."""
    unflushed = status.oldest_unflushed_seconds
    saved = "saved" if status.saved else f"NOT SAVED: {status.last_flush_error}"
    lines = [
        f"state      {status.state} since {status.since}: {status.detail}",
        f"root       {status.root}",
        f"tables     {status.out_dir}",
        f"rows       {status.n_sessions} sessions, {status.n_datasets} datasets, {show_bytes(status.n_bytes)}; "
        f"{status.n_ignored} other entries",
        f"flush      {saved}; generation {status.flushed_generation} of {status.generation}, "
        f"last {status.last_flush or 'never'}"
        + (f", oldest change {unflushed:.1f} s ago" if unflushed is not None else ""),
        f"watches    {status.watches}" + (f" of {status.watches_limit}" if status.watches_limit else "")
        + (f", {status.unwatched} folders not watched" if status.unwatched else ""),
        f"events     lost {status.events_lost} times",
    ]  # fmt: skip
    if status.adopt:
        lines.append(f"adopt      {_adopt_line(status.adopt)}")
    lines += [f"target     {_target_line(each)}" for each in status.targets]
    if status.trash_bytes:
        lines.append(f"trash      {show_bytes(status.trash_bytes)}; alfwatchd prune --list shows of which plans")
    if status.hashes_pending:
        lines.append(f"hashes     {status.hashes_pending} files to go")
    lines += [f"scan       {scan.started} {scan.reason}: {_show_seconds(scan.seconds)}" for scan in status.rescans[-3:]]
    lines += [f"problem    {problem.path or '.'}: {problem.message}" for problem in status.problems[:20]]
    if status.n_problems > 20:
        lines.append(f"           and {status.n_problems - 20} more: alfwatchd status --json")
    return lines


def _adopt_line(adopt: AdoptStatus) -> str:
    if adopt.last_error:
        return f"NOT READ: {adopt.last_error}"
    if adopt.n_sessions is None:
        return f"{adopt.source} is being read"
    when = f"read {adopt.read_at}" if adopt.read_at else "not read since the start"
    known = f"{adopt.source}: {adopt.n_sessions} sessions, {adopt.n_datasets} datasets, {when}"
    if adopt.n_matched_datasets is None:
        return known
    return f"{known}; {adopt.n_matched_sessions} and {adopt.n_matched_datasets} of them are here"


def _target_line(target: TargetStatus) -> str:
    name = f"{target.target}, tag {target.tag}" if target.tag else target.target
    held = (
        f"generation {target.generation}, right at {target.published_at}" if target.generation else "not yet published"
    )
    lag = f", oldest change {target.lag_seconds:.0f} s ago" if target.lag_seconds is not None else ""
    attempt = f", next attempt {target.next_attempt}" if target.next_attempt else ""
    failed = f"FAILED: {target.last_error}; " if target.last_error else ""
    return f"{name}: {failed}{held}{lag}{attempt}"


def published_line(target: str, tag: str, generation: str, date: str, *, is_new: bool) -> str:
    """Return what became of a publication."""
    name = f"{target}, tag {tag}" if tag else target
    return f"{'published to' if is_new else 'unchanged at'} {name}: generation {generation} of {date}"


def prune_lines(reply: PruneReply) -> list[str]:
    """Return what would go, or went, line by line."""
    moved = reply.freed_at is not None
    verb = ("moved to trash" if moved else "deleted") if reply.applied else "would go"
    lines = [f"{verb}: {item.path} ({show_bytes(item.file_size or 0)})" for item in reply.files]
    lines += [f"{verb}: {item.path}/" for item in reply.folders]
    lines += [f"kept: {item.path}: {item.reason}" for item in reply.kept[:_MOST_LINES]]
    if len(reply.kept) > _MOST_LINES:
        lines += [f"kept: {number} in all: {reason}" for reason, number in reply.n_kept.items()]
        lines.append("note: alfwatchd prune --json lists more of what is kept")
    lines += [f"note: {note}" for note in reply.notes]
    lines.append(
        f"{verb}: {len(reply.files)} files and {len(reply.folders)} folders, {show_bytes(reply.n_bytes)}, of "
        f"{reply.n_datasets} datasets of {reply.root}; reference: {reply.reference}{_reference_age(reply)}; plan "
        f"{reply.plan_id}"
    )
    if not reply.applied and (reply.files or reply.folders):
        lines.append("nothing was touched; add --apply to carry this out")
    if reply.freed_at is not None:
        lines.append(
            f"{show_bytes(reply.n_bytes)} moved, freed on {_show_day(reply.freed_at)}; "
            f"free it now: alfwatchd prune --empty-trash {reply.plan_id}"
        )
        lines.append(f"bring it back: alfwatchd prune --undo {reply.plan_id}")
    return lines


def trash_lines(reply: TrashReply) -> list[str]:
    """Return what became of files in the trash, line by line."""
    lines = [f"kept: {item.path}: {item.reason}" for item in reply.kept]
    done = "brought back" if reply.action == "undone" else "deleted from the trash"
    folders = f" and {reply.n_folders} folders" if reply.n_folders else ""
    plans = f"; nothing is left there of plan {', '.join(reply.plans)}" if reply.plans else ""
    lines.append(f"{reply.n_files} files{folders}, {show_bytes(reply.n_bytes)}, {done}{plans}")
    return lines


def plan_lines(reply: PlansReply) -> list[str]:
    """Return the latest plans, one line each."""
    if not reply.plans:
        return ["no plans are known here"]
    return [
        f"{plan.plan_id}  {plan.state:<8} {plan.changed_at[:19]}Z  {plan.n_files} files, {plan.n_folders} folders, "
        f"{show_bytes(plan.n_bytes)}, {plan.n_kept} kept; root {plan.root}; reference {plan.reference}"
        + (f"; freed on {_show_day(plan.freed_at)}" if plan.freed_at else "")
        for plan in reply.plans
    ]


def _show_day(when: str) -> str:
    day = datetime.fromisoformat(when)
    return f"{day.day} {_MONTHS[day.month - 1]}"


def _reference_age(reply: PruneReply) -> str:
    told = [f"of {reply.reference_date}"] if reply.reference_date else []
    if reply.reference_generation is not None:
        told.append(f"generation {reply.reference_generation}")
    return f" ({', '.join(told)})" if told else ""


def show_bytes(number: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _show_seconds(seconds: float | None) -> str:
    return "running" if seconds is None else f"{seconds:.2f} s"
