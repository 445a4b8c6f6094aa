"""The answers to `alfwatchd prune` as people read them. Pure."""

from __future__ import annotations

from datetime import datetime

from alfwatchd.api import PlansReply, PruneReply, TrashReply
from alfwatchd.cli.output import show_bytes

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_MOST_LINES = 100
"""Most files that are kept to be listed, one line each."""


def prune_lines(reply: PruneReply) -> list[str]:
    """Return what would be deleted, or was: a line for each file and folder, then notes and the sum.

    Parameters
    ----------
    reply : PruneReply

    Returns
    -------
    list of str
    """
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
    """Return what was done with files in the trash: a line for each that stays there, then the sum."""
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
