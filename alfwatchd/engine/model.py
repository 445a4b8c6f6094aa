"""What the engine is made of, and the state that `status` and requests read. Engine's thread only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from alfwatchd.api import DaemonState
from alfwatchd.database.adopter import Adopted, Adopter
from alfwatchd.engine.barriers import Barriers
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.pending_changes import PendingChanges
from alfwatchd.engine.schedule import FlushSchedule
from alfwatchd.figures import Durations
from alfwatchd.index.first_seen import FirstSeen
from alfwatchd.index.hash_queue import HashQueue
from alfwatchd.index.indexer import Indexer
from alfwatchd.index.scan_reasons import KINDS, kind_of
from alfwatchd.journal.pending import Pending
from alfwatchd.prune.trash_keeper import TrashKeeper
from alfwatchd.publish.publisher import Publisher
from alfwatchd.scan.mounts import WATCHABLE
from alfwatchd.settings import Settings
from alfwatchd.store.flusher import Flusher
from alfwatchd.store.id_history import IdsChanged
from alfwatchd.store.other_files import OtherFiles
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tables.set_columns import NewColumns, set_columns


@dataclass(slots=True, kw_only=True)
class EngineModel:
    """The parts of the engine and its state. All may read the attributes; only methods of this class change them.

    Parameters
    ----------
    settings : Settings
        Those in force.
    rules : TableRules
        How rows become columns.
    indexer : Indexer
    flusher : Flusher
    inbox : Inbox
    hashes : HashQueue or None
        None if hashing is off.
    adopter : Adopter or None
        None if no database is adopted.
    publisher : Publisher or None
        None if there are no targets.
    trash : TrashKeeper or None
        None if the engine does not empty the trash.
    pending : PendingChanges
        Tells what is not on disk yet to clients that ask.
    first_seen : FirstSeen
    earlier_generation : int
        Of the tables that were there when the process began; 0 for none.
    first_scan_done : callable
        Called once, before the first flush.
    reload : callable
        Reads the settings again; raises `AlfwatchdError` to keep the old ones.
    wall_clock : callable
        Time for people, in UTC.
    stopwatch : callable
        Seconds, to limit how long one step takes.
    watchable : frozenset of str
        Types of file systems on which events tell of every change.
    """

    settings: Settings
    rules: TableRules
    indexer: Indexer
    flusher: Flusher
    inbox: Inbox
    hashes: HashQueue | None = None
    adopter: Adopter | None = None
    publisher: Publisher | None = None
    trash: TrashKeeper | None = None
    pending: PendingChanges = field(default_factory=lambda: PendingChanges(Pending()))
    first_seen: FirstSeen = field(default_factory=FirstSeen)
    earlier_generation: int = 0
    first_scan_done: Callable[[], None]
    reload: Callable[[], Settings]
    wall_clock: Callable[[], datetime]
    stopwatch: Callable[[], float]
    watchable: frozenset[str] = WATCHABLE

    other_files: OtherFiles = field(init=False)
    flushes: FlushSchedule = field(init=False)
    barriers: Barriers = field(init=False)
    offline: str = field(default="the daemon has just started", init=False)
    """Why the root is offline; empty while it is online."""
    offline_since: str = field(init=False)
    """UTC, ISO 8601."""
    pending_scan: str = field(default="", init=False)
    """Why a scan of everything must begin soon; empty if none must."""
    events_lost: int = field(default=0, init=False)
    """How often events were lost."""
    n_events: int = field(default=0, init=False)
    """Number of file-system events."""
    scans: dict[str, Durations] = field(init=False)
    """Kind of a reason -> scans that ended; see `index.scan_reasons`."""
    may_flush: bool = field(default=True, init=False)
    """False while the output folder must not be written to."""
    n_recomputed_ids: int = field(default=0, init=False)
    """How many ids changed when the tables were last written with other ids."""
    state: DaemonState = field(default="starting", init=False)
    state_since: float = field(default=0.0, init=False)
    """When the state was entered, on the engine's clock, in seconds; 0 before the first step."""

    def __post_init__(self) -> None:
        self.other_files = OtherFiles(self.settings.root, self.settings.out_dir)
        self.flushes = FlushSchedule(self.earlier_generation, self.settings.flush_interval_seconds)
        self.barriers = Barriers(self.indexer, self.flushes)
        self.offline_since = self.now_for_people()
        self.scans = {kind: Durations() for kind in KINDS}

    def now_for_people(self) -> str:
        """Return the time in UTC, ISO 8601."""
        return self.wall_clock().isoformat(timespec="seconds")

    # What may be asked.

    @property
    def is_polled(self) -> bool:
        """Whether events cannot tell of all changes, so that only scans can."""
        types = self.indexer.guard.fs_types
        return not self.indexer.watch.is_on or (self.settings.watch == "auto" and not types <= self.watchable)

    def awaits_database(self, now: float) -> bool:
        """Tell whether the database must be looked at before the first flush."""
        return self.adopter is not None and self.adopter.is_pending(now)

    def has_rows(self, now: float) -> bool:
        """Tell whether the rows in memory are complete: the root was scanned, and the database looked at."""
        return bool(self.indexer.scans_done) and not self.awaits_database(now)

    @property
    def why_unsure(self) -> str:
        """Why nothing may be deleted now although the root is online; empty if deleting is safe.

        All such reasons are here. A prune asks before each session, so this must not copy or count anything.
        """
        indexer = self.indexer
        if held := indexer.absences.why_held:
            return f"nothing is deleted while rows are held: {held}"
        if folder := next(iter(indexer.unreadable), None):
            return f"{folder.path or self.settings.root}: cannot be read now; make it readable first"
        if place := next(iter(indexer.guard.missing), None):
            return f"{place}: is not what was mounted there ({indexer.guard.missing[place]}); mount it again first"
        return ""

    @property
    def may_delete(self) -> bool:
        """Whether old files in the trash may be deleted: this is certainly the root to which the trash belongs."""
        return bool(self.indexer.scans_done) and not self.offline and not self.why_unsure

    # What changes.

    def go_offline(self, reason: str) -> None:
        """Note that the root is offline from now on, and why."""
        self.offline, self.offline_since = reason, self.now_for_people()

    def stay_offline(self, reason: str) -> None:
        """Note why the root is still offline."""
        self.offline = reason

    def go_online(self) -> None:
        """Note that the root is online."""
        self.offline = ""

    def want_scan(self, reason: str) -> None:
        """Have everything scanned soon."""
        self.pending_scan = reason

    def forget_wanted_scan(self) -> None:
        """Note that the wanted scan has begun, or that the root is offline."""
        self.pending_scan = ""

    def lose_events(self, reason: str) -> None:
        """Note that events were lost, and have everything scanned."""
        self.events_lost += 1
        self.indexer.absences.lose_events()
        self.want_scan(reason)
        self.indexer.heard.lose()

    def note_events(self, number: int) -> None:
        """Count file-system events."""
        self.n_events += number

    def note_scan(self, reason: str, seconds: float) -> None:
        """Count a scan that ended."""
        self.scans[kind_of(reason)].add(seconds)

    def hold_flushes(self) -> None:
        """Write nothing until `allow_flushes`."""
        self.may_flush = False

    def allow_flushes(self) -> None:
        """Write again when that is due."""
        self.may_flush = True

    def enter(self, state: DaemonState, now: float) -> None:
        """Note the state at `now`; `state_since` stays if it is the same state."""
        if state != self.state or not self.state_since:
            self.state, self.state_since = state, now

    def adopt(self, message: Adopted) -> None:
        """Use what a look at the database found; write the tables again if their ids may change."""
        if self.adopter is not None:
            self.adopter.accept(message)
        if message.known is not None:
            known = message.known
            if self.adopter is not None and known.earlier is not self.adopter.earlier:  # columns were set meanwhile
                known = KnownColumns.of(self.adopter.earlier, known.adoption)
            self.rules = self.rules.use(known)
            self.flushes.force()

    def recompute_ids(self) -> None:
        """Write the tables again without the ids of earlier tables."""
        self.rules, self.n_recomputed_ids = self.rules.without_earlier_ids(), 0
        self.flushes.force()

    def set_columns(self, path: str, new: NewColumns) -> tuple[str, int]:
        """Set columns of a session, and write them; see `tables.set_columns`.

        Returns
        -------
        str, int
            Path of the session, and how many of its datasets got another qc.

        Raises
        ------
        UsageError
        """
        self.rules, session, n_datasets = set_columns(self.rules, self.indexer.tables.snapshot(), path, new)
        if self.adopter is not None:
            self.adopter.earlier = self.rules.known.earlier
        self.flushes.force()
        return session, n_datasets

    def note_changed_ids(self, message: IdsChanged) -> None:
        """Note how many ids the tables that were just written changed."""
        self.n_recomputed_ids = message.n_changes
        if self.adopter is not None:
            self.adopter.note_counts(message)

    def change_settings(self, new: Settings) -> None:
        """Put other settings into force."""
        old, self.settings = self.settings, new
        self.flushes.change_interval(new.flush_interval_seconds)
        self.indexer.change_limits(
            settle_seconds=new.settle_seconds,
            longest_wait_seconds=new.longest_wait_seconds,
            max_lost_fraction=new.guard.max_lost_fraction,
        )
        if new.lab != old.lab:
            self.rules = replace(self.rules, lab=new.lab)
            self.flushes.force()
        if new.exclude != old.exclude:
            self.indexer.exclude(new.exclude)
            self.want_scan("exclude changed")
