"""`alfwatchd --once`: updates the tables, publishes them, prints a summary and ends."""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from alfwatchd.cli import output
from alfwatchd.cli.interrupts import put_away
from alfwatchd.cli.prune_trash import empty_due
from alfwatchd.errors import AlfwatchdError
from alfwatchd.settings import Settings

if TYPE_CHECKING:
    from alfwatchd.service.once import Summary

_FAILURES = ("held", "nothing_found", "adopt_source")
"""Problems for which the command fails: the last lines tell of them."""


def run(settings: Settings, *, accept_root: bool, as_json: bool = False) -> int:
    """Update the tables, publish them, and return the exit code.

    Parameters
    ----------
    settings : Settings
    accept_root : bool
        Whether the root may be another disk or folder than last time.
    as_json : bool
        Whether the summary is printed as JSON.

    Raises
    ------
    AlfwatchdError
        As `service.once.run_once`, or the lock on the output folder cannot be taken.
    """
    from alfwatchd.cli.progress import ScanProgress
    from alfwatchd.service.locks import hold_out_dir
    from alfwatchd.service.once import run_once
    from alfwatchd.store.writer import use_system_memory

    use_system_memory()
    gc.disable()  # not enabled again, as the process ends with this command; see `once.no_garbage_collection`
    with put_away():
        with hold_out_dir(settings.out_dir, settings.root), ScanProgress() as progress:
            summary = run_once(settings, accept_root=accept_root, progress=progress.update)
            if not summary.held:  # otherwise the trash may be on another disk
                empty_due(settings)
        if not as_json:
            _show_summary(summary)
        published = _publish_all(settings, as_json=as_json)
        if as_json:
            output.show_json(asdict(summary) | {"published": list(map(asdict, published))})
    reasons = [problem.message for problem in summary.problems if problem.kind in ("held", "nothing_found")]
    if summary.source_error:
        reasons.append(f"the tables are written without a look at the database: {summary.source_error}")
    for reason in reasons:
        output.complain(reason)
    return int(bool(reasons) or any(each.error for each in published))


def _show_summary(summary: Summary) -> None:
    for problem in summary.problems:
        if problem.kind not in _FAILURES:
            output.note(f"problem: {problem.path or '.'}: {problem.message}")
    if (known := summary.adopted) is not None:
        output.show(
            f"the database knows {known.n_sessions} of the sessions and {known.n_datasets} of the datasets; "
            f"{known.n_changes} ids changed" + (": alfwatchd ids OLD finds the new ones" if known.n_changes else "")
        )
    output.show(
        f"{summary.n_sessions} sessions, {summary.n_datasets} datasets, {output.show_bytes(summary.n_bytes)}; "
        f"{summary.added} added, {summary.changed} changed, {summary.removed} removed; "
        f"{len(summary.problems)} problem{'s' * (len(summary.problems) != 1)}; {summary.seconds:.2f} seconds"
    )


@dataclass(frozen=True, slots=True)
class Published:
    """What was done at one target; `generation` and `date` are null, and `error` says why, if nothing was."""

    target: str
    tag: str
    published: bool
    """False also where the target held these rows already."""
    generation: str | None
    date: str | None
    error: str | None


def _publish_all(settings: Settings, *, as_json: bool) -> list[Published]:
    """Publish to each target, also after another target has failed."""
    from alfwatchd.publish.publication import publish_surely

    found = []
    for entry in settings.publish:
        name, tag = entry.target, entry.subset.tag
        try:
            done = publish_surely(settings.out_dir, entry)
            if not as_json:
                output.show(published_line(name, tag, done.name, done.date, is_new=done.published))
            if done.removal_error:
                output.complain(done.removal_error)
            found.append(Published(name, tag, done.published, done.name, done.date, None))
        except AlfwatchdError as error:
            output.complain(f"the tables are written, but not published to {entry.target}: {error}")
            found.append(Published(name, tag, published=False, generation=None, date=None, error=str(error)))
    return found


def published_line(target: str, tag: str, generation: str, date: str, *, is_new: bool) -> str:
    """Return what was done at one target, as people read it.

    Parameters
    ----------
    target : str
        Folder or address.
    tag : str
        Tag of the subset; empty for none.
    generation : str
        Name of what the target holds now.
    date : str
        When these tables were made.
    is_new : bool
        Whether something was published; False where the target held it already.
    """
    name = f"{target}, tag {tag}" if tag else target
    return f"{'published to' if is_new else 'unchanged at'} {name}: generation {generation} of {date}"
