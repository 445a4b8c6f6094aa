"""Makes a prune plan, previews or applies it, and makes the reply; the same with and without a daemon."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from alfwatchd.alf import ids
from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.printable import printable
from alfwatchd.api import PruneItem, PruneReply
from alfwatchd.errors import PruneRefused, RootOffline
from alfwatchd.prune import executor
from alfwatchd.prune.candidates import Rules, look
from alfwatchd.prune.links import find_link_targets
from alfwatchd.prune.near_miss import NearMisses
from alfwatchd.prune.plan import OWN_TABLES, OnDisk, PruneOutcome, PrunePlan, make_plan, refuse_too_much
from alfwatchd.prune.plan_files import PlanRecords, iso
from alfwatchd.prune.reference import Reference
from alfwatchd.prune.reference_files import read_reference
from alfwatchd.prune.trash import Trash
from alfwatchd.prune.unlisted import Kept, find_unlisted
from alfwatchd.scan.mounts import Mount, MountWatch, find_place, mounts_near
from alfwatchd.scan.place import Place
from alfwatchd.settings import Settings
from alfwatchd.store import reader
from alfwatchd.tables import carry_over
from alfwatchd.tree.packed import is_of_link, unpack_signature
from alfwatchd.tree.sessions import TablesView

_OWN_NOTE = (
    "the reference is the daemon's own tables, which mirror the disk, so there is nothing to delete; "
    "name tables that list what must stay with --reference"
)
_MOST_KEPT = 10_000
"""How many files and folders that stay a reply lists; all are counted."""


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """What a client may ask of a prune.

    Parameters
    ----------
    reference : Path or None
        Folder of the reference tables; None: the setting ``prune.reference``.
    keep_empty_sessions : bool
        Whether folders of sessions stay even if they are not in the reference and empty.
    max_fraction : float or None
        Largest part of all datasets and bytes to delete, 0 to 1; None: the setting ``prune.max_fraction``.
    newer : bool
        Whether files that are newer than the reference may go as well.
    """

    reference: Path | None = None
    keep_empty_sessions: bool = False
    max_fraction: float | None = None
    newer: bool = False


def plan_prune(view: TablesView, settings: Settings, options: PruneOptions) -> PrunePlan:
    """Plan a prune of the files that are on disk now. Without a reference the plan is empty.

    Raises
    ------
    PruneRefused
        Rows are held, a part of the root cannot be read, the reference cannot be used, or too much would go.
    RootOffline
        The root cannot be opened.
    """
    require_not_held(view)
    if view.unsure:
        raise PruneRefused(
            f"{printable(view.unsure[0])}: {len(view.unsure)} folders below {settings.root} cannot be read now, so "
            "nothing is deleted; make them readable, or mount what is missing, first"
        )
    folder = options.reference or settings.prune.reference
    if folder is None:
        return make_plan(str(settings.root), (OWN_TABLES, "", None), count(view), (), ())
    _require_other_than_own(folder, settings)
    try:
        plan = plan_for(
            settings.root,
            view,
            read_reference(folder),
            eids=_known_eids(settings.out_dir),
            namespace=settings.namespace,
            remove_empty_sessions=not options.keep_empty_sessions,
            margin_seconds=None if options.newer else settings.prune.margin_seconds,
            follow_links=settings.follow_links,
        )
    except PruneRefused as error:
        raise PruneRefused(f"prune of {settings.root} by {folder}: {error}") from error
    refuse_too_much(plan, settings.prune.max_fraction if options.max_fraction is None else options.max_fraction)
    return plan


def require_not_held(view: TablesView) -> None:
    """Refuse a prune while rows of sessions that are gone are held, as the root may be another disk.

    Raises
    ------
    PruneRefused
        Rows are held; the message says why, and what to do.
    """
    if view.held:
        raise PruneRefused(f"nothing is deleted while rows are held: {view.held}")


def plan_for(
    root: Path,
    view: TablesView,
    reference: Reference,
    *,
    eids: Mapping[str, bytes] | None = None,
    namespace: uuid.UUID = ids.NAMESPACE,
    remove_empty_sessions: bool,
    margin_seconds: float | None,
    follow_links: bool = False,
) -> PrunePlan:
    """Plan to delete all datasets that are not in a reference, without a limit on their number.

    Parameters
    ----------
    root : Path
        Links resolved.
    view : TablesView
        What is on disk now.
    reference : Reference
    eids : mapping of str to bytes or None
        `SessionKey.eid_path` -> 16 bytes of the id that our own tables have for this session. None: no ids.
    namespace : uuid.UUID
        Namespace of the ids that paths give.
    remove_empty_sessions : bool
        Whether folders of sessions that are not in the reference may go, once they are empty.
    margin_seconds : float or None
        What was made or changed later than the reference's date minus this stays; None: age does not matter.
    follow_links : bool
        See `links.find_link_targets`.

    Raises
    ------
    PruneRefused
        The reference is of another tree or has no date, or a link in the root cannot be followed.
    RootOffline
        The root cannot be opened.
    """
    stays = Kept(_MOST_KEPT)
    near = NearMisses(reference, view.snapshot.sessions, eids or {}, namespace)
    unlisted = [*find_unlisted(view.snapshot, reference, near, stays, remove_empty_sessions=remove_empty_sessions)]
    protected = find_link_targets(root, follow_links=follow_links) if unlisted else frozenset()
    listed = _listed_folders(root, view, reference) if unlisted else {}
    rules = Rules(protected, listed, _newest_ns(reference, margin_seconds), view.first_seen)
    found = look(root, unlisted, rules, stays)
    origin = reference.origin
    told = (origin.source, origin.iso_date, origin.generation)
    return make_plan(str(root), told, count(view), found.files, found.folders, stays.items, found.places, stays.counts)


def _listed_folders(root: Path, view: TablesView, reference: Reference) -> dict[tuple[int, int], str]:
    """Return (st_dev, st_ino) -> path of the folders of listed sessions; empty if no mount can show one twice."""
    found: dict[tuple[int, int], str] = {}
    if not mounts_near(str(root))[1]:
        return found
    for session in view.snapshot.sessions.values():
        if not session.is_link and reference.numbers_of(session.key):
            for folder in {"", *(rows.folder for rows in session.folders)}:
                path = f"{session.path}/{folder}" if folder else session.path
                with suppress(OSError):
                    about = os.stat(root / path)
                    found.setdefault((about.st_dev, about.st_ino), path)
    return found


def count(view: TablesView) -> OnDisk:
    """Count the datasets that a prune could take: no links to files, and none in linked sessions."""
    n_datasets = n_bytes = 0
    for session in view.snapshot.sessions.values():
        for _, packed in session.folders if not session.is_link else ():
            n_datasets += len(packed.names)
            n_bytes += packed.n_bytes
            for value in packed.unpack().values() if packed.has_links else ():
                if is_of_link(value):
                    n_datasets -= 1
                    n_bytes -= unpack_signature(value).file_size
    return OnDisk(n_datasets, n_bytes)


def _newest_ns(reference: Reference, margin_seconds: float | None) -> int | None:
    if margin_seconds is None:
        return None
    if reference.origin.date is None:
        raise PruneRefused(f"{reference.origin}: nothing tells how old these tables are; nothing was deleted")
    try:
        return int((reference.origin.date - timedelta(seconds=margin_seconds)).timestamp() * 1e9)
    except OverflowError:  # before the year 1
        return -1


def _require_other_than_own(folder: Path, settings: Settings) -> None:
    """Refuse the daemon's own tables as a reference: they list all that is on disk, so that nothing could go."""
    own = settings.out_dir
    for one, other in ((folder, own), *((folder / name, own / name) for name in (SESSIONS, DATASETS))):
        with suppress(OSError):
            if one.samefile(other):
                raise PruneRefused(
                    f"{one}: this is where the tables of {settings.root} are written; they list what is on disk, "
                    "not what must stay; copy the tables to a folder of their own first"
                )


def _known_eids(out_dir: Path) -> dict[str, bytes]:
    """Return `SessionKey.eid_path` -> id, from the sessions table in a folder; empty if there is none."""
    table = reader.read_sessions(out_dir)
    if table is None or "id" not in table.column_names:
        return {}
    rows = zip(carry_over.session_keys(table), map(ids.parse_id, table.column("id").to_pylist()), strict=True)
    return {key.eid_path: eid for key, eid in rows if key is not None and eid is not None}


def preview(
    settings: Settings, plan: PrunePlan, may_continue: Callable[[], None], actor: str = "this user"
) -> PruneReply:
    """Say what a plan would do now. Changes nothing except the list of plans in the state folder.

    Parameters
    ----------
    settings : Settings
    plan : PrunePlan
    may_continue, actor
        As for `executor.apply_plan`, which also says what is raised.
    """
    outcome = executor.preview_plan(
        settings.root,
        plan,
        may_continue=may_continue,
        excluded=compile_exclude(settings.exclude),
        trash=_trash(settings),
        actor=actor,
    )
    reply = _reply(plan, outcome)
    PlanRecords(settings.state_dir).note_plan(plan, reply)
    return reply


def apply(
    settings: Settings,
    plan: PrunePlan,
    may_continue: Callable[[], None],
    log: Callable[[str], None],
    actor: str = "this user",
    is_wanted: Callable[[], bool] = lambda: True,
    log_end: Callable[[str], None] | None = None,
    removing: Callable[[str], None] = lambda _: None,
) -> PruneReply:
    """Carry a plan out, and note in the state folder what became of it.

    Parameters
    ----------
    settings : Settings
    plan : PrunePlan
    may_continue, log, actor, is_wanted, removing
        As for `executor.apply_plan`, which also says what is raised.
    log_end : callable or None
        Given the one line that ends each prune, also one that fails; None: `log`.
    """
    started, outcome = time.monotonic(), PruneOutcome((), (), ())
    try:
        outcome = executor.apply_plan(
            settings.root,
            plan,
            may_continue=may_continue,
            log=log,
            excluded=compile_exclude(settings.exclude),
            trash=_trash(settings),
            is_wanted=is_wanted,
            find_protected=lambda: find_link_targets(settings.root, follow_links=settings.follow_links),
            removing=removing,
            actor=actor,
        )
    finally:
        stopped = f" stopped={str(outcome.stopped)!r}" if outcome.stopped is not None else ""
        (log_end or log)(
            f"prune done plan={plan.plan_id} deleted={len(outcome.deleted)} kept={len(outcome.kept)} "
            f"bytes={outcome.n_bytes} seconds={time.monotonic() - started:.2f}{stopped}"
        )
    reply = _reply(plan, outcome, applied=True)
    PlanRecords(settings.state_dir).note_result(plan, reply)
    return reply


def _trash(settings: Settings) -> Trash | None:
    return Trash(settings.prune.trash_seconds) if settings.prune.trash_seconds > 0 else None


class RootCheck:
    """Notices, for a prune without a daemon, that the root or a mount is another one than when this object was made.

    Raises
    ------
    RootOffline
        The root or the table of mounts cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            self._watch = MountWatch()  # before looking, so that no later mount is missed
        except OSError as error:
            raise RootOffline(f"the table of mounts cannot be read ({error.strerror}); nothing is deleted") from error
        self._place, self._mounts = self._find_place(), self._find_mounts()
        self._is_other = False

    def check(self) -> None:
        """Look again; takes little time as long as nothing is mounted or unmounted.

        Raises
        ------
        RootOffline
            The root is another folder, or something was mounted or unmounted; also at each later call.
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


def _reply(plan: PrunePlan, outcome: PruneOutcome, *, applied: bool = False) -> PruneReply:
    """Return what clients are told of a plan, or of what became of it."""
    notes = [_OWN_NOTE] if plan.reference == OWN_TABLES else []
    if outcome.stopped is not None:
        notes.append(f"stopped half way: {outcome.stopped}")
    return PruneReply(
        plan_id=plan.plan_id,
        applied=applied,
        root=printable(plan.root),
        reference=plan.reference,
        reference_date=plan.reference_date,
        reference_generation=plan.reference_generation,
        n_datasets=plan.n_datasets,
        n_bytes_on_disk=plan.n_bytes_on_disk,
        files=[PruneItem(printable(file.path), file.state.size) for file in outcome.deleted],
        folders=[PruneItem(printable(path), None) for path in outcome.removed],
        n_bytes=outcome.n_bytes,
        kept=[PruneItem(printable(item.path), item.file_size, item.reason) for item in (*outcome.kept, *plan.kept)],
        n_kept=_sum_up(plan, outcome),
        notes=notes,
        complete=not (applied and outcome.has_failed),
        freed_at=iso(outcome.freed_at),
    )


def _sum_up(plan: PrunePlan, outcome: PruneOutcome) -> dict[str, int]:
    """Return reason, up to its colon -> how many files and folders stay for it."""
    found = dict(plan.n_kept)
    for item in outcome.kept:
        reason = item.reason.partition(":")[0]
        found[reason] = found.get(reason, 0) + 1
    return found
