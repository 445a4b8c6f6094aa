"""From the tables and a reference to a prune plan, and from an applied plan to a reply. With and without a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from alfwatchd import prune, stored
from alfwatchd.core import kept
from alfwatchd.core.exclude import compile_exclude
from alfwatchd.core.guard import Place
from alfwatchd.core.messages import TablesView
from alfwatchd.core.prune_plan import PruneOutcome, PrunePlan, Reference, make_plan
from alfwatchd.core.replies import PruneItem, PruneReply
from alfwatchd.core.tables import Snapshot
from alfwatchd.errors import PruneRefused, RootOffline, TablesError
from alfwatchd.mounts import Mount, MountWatch, find_place, mounts_near
from alfwatchd.prune_look import look_at_plan
from alfwatchd.prune_plans import PlanRecords, iso
from alfwatchd.scanner import printable
from alfwatchd.settings import Settings
from alfwatchd.trash import Trash

OWN_TABLES = "the daemon's own tables"
_NEEDED_OF_SESSIONS, _NEEDED_OF_DATASETS = {"id", "subject", "date", "number"}, {"eid", "rel_path"}
_OWN_NOTE = (
    "the reference is the daemon's own tables, which mirror the disk, so there is nothing to delete; "
    "name the tables of what is to stay with --reference"
)


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """What may be asked of a prune; None stands for the setting."""

    reference: Path | None = None
    keep_empty_sessions: bool = False
    max_fraction: float | None = None


def plan_prune(view: TablesView, settings: Settings, options: PruneOptions) -> PrunePlan:
    """Plan a prune of what the tables hold now.

    Raises
    ------
    PruneRefused
        No reference tables, a part of the root could not be read, or too much would go.
    """
    if view.unsure:
        raise PruneRefused(
            f"{printable(view.unsure[0])}: {len(view.unsure)} folders below {settings.root} cannot be read now, so "
            "nothing is deleted; make them readable, or mount what is missing, first"
        )
    folder = options.reference or settings.prune.reference
    reference = _own_reference(view.snapshot) if folder is None else read_reference(folder)
    fraction = settings.prune.max_fraction if options.max_fraction is None else options.max_fraction
    plan = make_plan(
        view.snapshot,
        reference,
        lab=settings.lab,
        remove_empty_sessions=not options.keep_empty_sessions,
        max_fraction=None if fraction >= 1 else fraction,
    )
    return look_at_plan(settings.root, plan)


def preview(
    settings: Settings, plan: PrunePlan, may_continue: Callable[[], None], actor: str = "this user"
) -> PruneReply:
    """Say what a plan would do now; changes nothing but the list of plans in the state folder."""
    outcome = prune.preview_plan(
        settings.root,
        plan,
        may_continue=may_continue,
        excluded=compile_exclude(settings.exclude),
        trash=_trash(settings),
        actor=actor,
    )
    reply = _reply(settings, plan, outcome)
    PlanRecords(settings.state_dir).note_plan(plan, reply)
    return reply


def apply(
    settings: Settings,
    plan: PrunePlan,
    may_continue: Callable[[], None],
    log: Callable[[str], None],
    actor: str = "this user",
    is_wanted: Callable[[], bool] = lambda: True,
    find_protected: Callable[[], AbstractSet[tuple[int, int]]] = frozenset,
) -> PruneReply:
    """Carry a plan out; parameters as of `prune.apply_plan`. One line in the log ends it, however it ends."""
    started, outcome = time.monotonic(), PruneOutcome((), (), ())
    try:
        outcome = prune.apply_plan(
            settings.root,
            plan,
            may_continue=may_continue,
            log=log,
            excluded=compile_exclude(settings.exclude),
            trash=_trash(settings),
            is_wanted=is_wanted,
            find_protected=find_protected,
            actor=actor,
        )
    finally:
        stopped = f" stopped={str(outcome.stopped)!r}" if outcome.stopped is not None else ""
        log(
            f"prune done plan={plan.plan_id} deleted={len(outcome.deleted)} kept={len(outcome.kept)} "
            f"bytes={outcome.n_bytes} seconds={time.monotonic() - started:.2f}{stopped}"
        )
    reply = _reply(settings, plan, outcome, applied=True)
    PlanRecords(settings.state_dir).note_result(plan, reply)
    return reply


def _trash(settings: Settings) -> Trash | None:
    return Trash(settings.prune.trash_seconds) if settings.prune.trash_seconds > 0 else None


class RootCheck:
    """Makes sure, without a daemon, that root and mounts stay what they were before the plan was made."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            self._watch = MountWatch()  # first: what is mounted right after the look must not be missed
        except OSError as error:
            raise RootOffline(f"the table of mounts cannot be read ({error.strerror}); nothing is deleted") from error
        self._place, self._mounts = self._find_place(), self._find_mounts()
        self._is_other = False

    def check(self) -> None:
        """Look again; cheap as long as nothing is mounted or unmounted.

        Raises
        ------
        RootOffline
            Something else is there now.
        """
        self._is_other = self._is_other or self._find_place() != self._place
        if self._watch.has_changed():
            self._is_other = self._is_other or self._find_mounts() != self._mounts
        if self._is_other:
            raise RootOffline(
                f"{self._root}: something else is there now, or was mounted or unmounted below it; "
                "nothing more is deleted"
            )

    def close(self) -> None:
        """Close the table of mounts."""
        self._watch.close()

    def _find_place(self) -> Place:
        try:
            return find_place(str(self._root))
        except OSError as error:
            raise RootOffline(f"{self._root}: cannot be read ({error.strerror})") from error

    def _find_mounts(self) -> tuple[Mount, ...]:
        try:
            above, below = mounts_near(str(self._root))
        except OSError as error:
            raise RootOffline(f"the table of mounts cannot be read ({error.strerror})") from error
        return (*above, *below)


def read_reference(folder: Path) -> Reference:
    """Read reference tables.

    Raises
    ------
    PruneRefused
        There are none, or they cannot be read.
    """
    try:
        tables = stored.read_tables(folder)
    except TablesError as error:
        raise PruneRefused(f"the reference tables cannot be used: {error}") from error
    if tables is None:
        raise PruneRefused(
            f"{folder}: no reference tables here; it must be a folder with {stored.SESSIONS} and {stored.DATASETS}"
        )
    return make_reference(str(folder), tables.sessions, tables.datasets)


def make_reference(source: str, sessions: pa.Table, datasets: pa.Table) -> Reference:
    """Make a reference of tables.

    Parameters
    ----------
    source : str
        Where they come from, for messages.
    sessions, datasets : pyarrow.Table
        With their index as plain columns.

    Raises
    ------
    PruneRefused
        A row cannot be understood. What it stands for would be deleted.
    """
    missing = _NEEDED_OF_SESSIONS - set(sessions.column_names) | _NEEDED_OF_DATASETS - set(datasets.column_names)
    if missing:
        raise PruneRefused(f"{source}: the tables lack the columns {', '.join(sorted(missing))}; nothing was deleted")
    keys = kept.session_keys(sessions)
    listed: dict[str, set[str]] = {key.eid_path: set() for key in keys if key is not None}
    n_rows = 0
    for key, rel_path, *_ in kept.dataset_rows(sessions, datasets, keys):
        listed[key.eid_path].add(rel_path)
        n_rows += 1
    # ONE itself writes rows without a path, for files that are no datasets.
    n_odd = len(datasets) - n_rows - datasets.column("rel_path").null_count
    if None in keys or n_odd:
        raise PruneRefused(
            f"{source}: {keys.count(None)} rows of the sessions table have no subject, date or number, and {n_odd} "
            "rows of the datasets table have no session: do the two tables belong together? Nothing was deleted"
        )
    return Reference(source, _with_any_lab(listed))


def _with_any_lab(listed: dict[str, set[str]]) -> dict[str, set[str]]:
    """Let rows with a lab stand for sessions in no lab folder too: it may come from a `lab` setting, now or then."""
    found = {path: set(rel_paths) for path, rel_paths in listed.items()}
    for path, rel_paths in listed.items():
        if path.count("/") == 3:
            found.setdefault(path.partition("/")[2], set()).update(rel_paths)
    return found


def _own_reference(snapshot: Snapshot) -> Reference:
    sessions = {
        session.key.eid_path: {rel_path for rel_path, _ in session.datasets()} for session in snapshot.sessions.values()
    }
    return Reference(OWN_TABLES, sessions)


def _reply(settings: Settings, plan: PrunePlan, outcome: PruneOutcome, *, applied: bool = False) -> PruneReply:
    notes = [_OWN_NOTE] if plan.reference == OWN_TABLES else []
    if outcome.stopped is not None:
        notes.append(f"stopped half way: {outcome.stopped}")
    return PruneReply(
        plan_id=plan.plan_id,
        applied=applied,
        root=printable(str(settings.root)),
        reference=plan.reference,
        n_datasets=plan.n_datasets,
        files=[PruneItem(printable(file.path), file.state.size) for file in outcome.deleted],
        folders=[PruneItem(printable(path), None) for path in outcome.removed],
        n_bytes=outcome.n_bytes,
        kept=[PruneItem(printable(item.path), item.file_size, item.reason) for item in (*plan.kept, *outcome.kept)],
        notes=notes,
        complete=not (applied and outcome.has_failed),
        freed_at=iso(outcome.freed_at),
    )
