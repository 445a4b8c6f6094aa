"""Sessions that are gone without an event: their rows stay until a whole scan has shown how many there are.

A disk that is swapped, a pool that comes back with other files, a mount that is missing: all look like deletions. What
an event told of goes at once. All else waits for the end of the scan, and is held if it is too much.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

from alfwatchd.alf.exclude import Excluded
from alfwatchd.alf.grammar import Kind
from alfwatchd.errors import WatchError
from alfwatchd.index.intake import EarlierRow, Unreadable
from alfwatchd.index.look_queue import Scan
from alfwatchd.index.losses import Loss, is_too_much, say_held
from alfwatchd.index.record import NOT_RECORDED, Record
from alfwatchd.tree.folder import Folder
from alfwatchd.tree.known_sample import KnownSession
from alfwatchd.tree.rows import Problem, Session
from alfwatchd.tree.sessions import Tables
from alfwatchd.tree.tree import Tree
from alfwatchd.watch.supervisor import WatchSupervisor

_log = logging.getLogger(__name__)

_PROOF_SECONDS = 2.0
"""A cookie that did not come back by then is not waited for."""


class Absences:
    """Decides which rows go. Owns the tables' side of the tree; engine's thread only.

    Parameters
    ----------
    tables : Tables
    tree : Tree
    watch : WatchSupervisor
    unreadable : mapping of Folder to Unreadable
        Folders that could not be read: what lay below them is not gone. The caller changes the mapping.
    max_fraction : float
        See `allow_losses`.
    record : Record
        Keeps what is held for the next run.
    excluded : callable or None
        See `exclude`.
    """

    def __init__(
        self,
        tables: Tables,
        tree: Tree,
        watch: WatchSupervisor,
        unreadable: Mapping[Folder, Unreadable],
        *,
        max_fraction: float = 1.0,
        record: Record = NOT_RECORDED,
        excluded: Excluded | None = None,
    ) -> None:
        self.since = "the last run"
        """When everything was last looked at, for a person."""
        self.loss: Loss | None = None
        """What is held; None if nothing is."""
        self._max_fraction, self._record, self._excluded = max_fraction, record, excluded
        self._accepts = False
        """Whether a person has said that what is gone is really gone."""
        self._tables, self._tree, self._watch = tables, tree, watch
        self._unreadable = unreadable
        self._undecided: set[str] = set()
        self._unsure: set[str] = set()
        """Gone, and below a folder that cannot be read."""
        self._held: set[str] = set()
        self._new: set[str] = set()
        """Sessions that came since the last decision."""
        self._told: set[str] = set()
        """Sessions of which events told that they are gone, and no listing yet."""
        self._pruned: set[str] = set()
        """Sessions that a prune has removed, or is about to."""
        self._is_pruning = False
        self._is_deaf = False
        """Whether events were lost, so that none proves anything until everything has been looked at."""
        self._healing: list[Scan] = []
        """Scans that began after events were lost."""
        self._ended: Scan | None = None
        self._proof, self._proof_since = "", 0.0

    @property
    def are_undecided(self) -> bool:
        """Whether a scan must still show if some rows go."""
        return bool(self._undecided)

    @property
    def await_proof(self) -> bool:
        """Whether the scan is over, and we wait for the events that came before its end."""
        return bool(self._proof)

    @property
    def why_held(self) -> str:
        """What a person should know and do while rows are held; empty if none are."""
        return say_held(self.loss) if self.loss is not None else ""

    def problems(self) -> list[Problem]:
        """Return one problem while rows are held."""
        return [Problem("held", "", self.why_held)] if self.loss is not None else []

    # What is set.

    def allow_losses(self, max_fraction: float) -> None:
        """Set which part of all sessions, 0 to 1, may go without being held.

        It is the setting `guard.max_lost_fraction`. 1 holds only the loss of all sessions, or of all sessions of a lab.
        """
        self._max_fraction = max_fraction

    def exclude(self, excluded: Excluded | None) -> None:
        """Set which paths are left out, see `alf.exclude`: their sessions are no loss."""
        self._excluded = excluded

    def accept(self) -> None:
        """Note that a person said that the sessions that are gone are really gone; it counts for the next scan."""
        self._accepts = True

    # What is seen.

    def note(self) -> None:
        """Take note of what went from the tree since the last call, in the listing of a folder or in a unit."""
        for sessions in self._tree.take_drops() if self._tree.drops else ():
            told = (self._told | self._pruned).intersection(sessions)
            self._told -= told
            self._pruned -= told
            self._undecided -= told
            self._undecided.update(set(sessions) - told)

    def tell(self, folder: Folder, names: Set[str]) -> None:
        """Take note of an event: these sub-folders are gone, with all sessions below them.

        A listing may have shown it already, or will show it. A new folder may be in the place of each, even with the
        same inode.
        """
        if self._is_deaf:
            return
        for name in names:
            child = folder.children.get(name)
            if child is not None:
                self._told.update(_sessions_below(child))
            if self._undecided:
                path = f"{folder.path}/{name}" if folder.parent is not None else name
                told = {each for each in self._undecided if each == path or each.startswith(f"{path}/")}
                self._undecided -= told
                self._drop(told)

    def rest(self) -> None:
        """Note that every folder that events marked has been looked at."""
        self._told.clear()
        if not self._is_pruning:
            self._pruned.clear()

    def tell_pruned(self, session: str) -> None:
        """Note that a prune removes a session. A listing may have shown it already, or will show it."""
        self._is_pruning = True
        self._pruned.add(session)
        if session in self._undecided:
            self._undecided.discard(session)
            self._drop({session})

    def end_prune(self) -> None:
        """Note that a prune is over: its notes count until all folders that are marked now have been looked at."""
        self._is_pruning = False

    def lose_events(self) -> None:
        """Count no event as proof until a whole scan that begins after this call is over."""
        self._is_deaf, self._healing, self._proof, self._told = True, [], "", set()

    def begin_scan(self, whole: Scan) -> None:
        """Note that a scan over everything will be done."""
        if self._is_deaf and not any(each is whole for each in self._healing):
            self._healing.append(whole)

    def forget_scans(self) -> None:
        """Note that no scan that has begun will end; one must follow."""
        self._healing, self._proof = [], ""

    def note_time(self, now: str) -> None:
        """Note for people when everything was last looked at."""
        if self.loss is None and not self._undecided:
            self.since = now

    def commit(self, sessions: Sequence[Session], dropped: Iterable[str], *, is_first: bool) -> None:
        """Bring the tables up to date with what changed in the tree."""
        for path in dropped:
            if path not in self._undecided and path not in self._held:
                self._drop([path])
        is_waiting = bool(self._undecided or self._held or self._unsure)
        for session in sessions:
            if is_waiting:
                self._restore(session.path)
            if not is_first and self._tables.get(session.path) is None:
                self._new.add(session.path)
            self._tables.replace_session(session)
        if self._unsure and not any(map(self._is_below_unreadable, self._unsure)):
            self._undecided |= self._unsure
            self._unsure = set()

    def _restore(self, path: str) -> None:
        """Note that a session is there, under its old path or with its number written in another way."""
        folder, _, number = path.rpartition("/")
        for width in (1, 2, 3):
            spelling = f"{folder}/{int(number):0{width}d}"
            is_waiting = spelling in self._undecided or spelling in self._held or spelling in self._unsure
            self._undecided.discard(spelling)
            self._unsure.discard(spelling)
            self._held.discard(spelling)
            if is_waiting and spelling != path and self._tree.find(spelling) is None:
                self._drop([spelling])
        if not self._held:
            self._release_note()

    def _release_note(self) -> None:
        if self.loss is not None and not self._held:
            _log.info("sessions are back, nothing is held any more")
            self.loss = None
            self._record.keep_loss(None)

    # What is decided.

    def end_scan(self, ended: Scan, now: float, *, is_first: bool) -> None:
        """Decide what of the sessions that are gone goes from the tables."""
        self._ended = ended
        if self._undecided and self._watch.is_on and not (self._is_deaf or self._accepts or self._proof):
            try:  # events from before the scan's end come before this cookie, and may tell of what the scan missed
                self._proof, self._proof_since = self._watch.drop_cookie(), now
            except WatchError as error:
                _log.warning("no cookie, deciding without it error=%s", error)
        if not self._proof:
            self._decide(is_first=is_first)
        if any(each is ended for each in self._healing):
            self._is_deaf, self._healing = False, []

    def cookie_returned(self, name: str) -> None:
        """Note that a cookie came back: all events from before it have been handled."""
        if name and name == self._proof:
            self._proof = ""
            self._decide(is_first=False)

    def poll(self, now: float) -> None:
        """Decide without the cookie if it does not come."""
        if self._proof and now - self._proof_since > _PROOF_SECONDS:
            self.cookie_returned(self._proof)

    def _decide(self, *, is_first: bool) -> None:
        """Drop the rows of sessions that are gone, or hold them if they are too many."""
        fresh = self._undecided | self._unsure
        if fresh or self._held:
            meant = {path for path in fresh | self._held if self._tables.get(path) is None or self._is_meant(path)}
            self._unsure = {path for path in fresh - meant if self._is_below_unreadable(path)}
            gone = (fresh | self._held) - meant - self._unsure
            self._undecided = set()
            if gone and not self._accepts and (self._held or self._is_too_much(gone)):
                self._drop(meant)
                self._hold(gone)
            else:
                self._held = set()
                self._drop(meant | gone)
                self._release_note()
        if self.loss is None and not self._unsure:
            self._new = set()
        self._accepts = self._accepts and is_first

    def _is_too_much(self, gone: set[str]) -> bool:
        staying = self._staying(gone)
        return is_too_much(gone, len(staying) + len(gone), staying, self._max_fraction)

    def _staying(self, gone: set[str]) -> list[str]:
        """Return the paths of the sessions that were known before and are not gone."""
        return [path for path in self._tables.paths() if path not in gone and path not in self._new]

    def _hold(self, gone: set[str]) -> None:
        rows = filter(None, map(self._tables.get, gone - self._held))
        if self._ended is not None:  # they are not removed after all
            self._ended.changes.removed -= sum(row.n_datasets for row in rows)
        self._held = gone
        n_known = len(gone) + len(self._staying(gone))
        self._note_loss(Loss(len(gone), n_known, self._tables.counts.n_sessions - n_known, self.since))

    def _note_loss(self, loss: Loss) -> None:
        if self.loss is None or self.loss[:3] != loss[:3]:
            _log.error("rows are held: %s", say_held(loss))
            self._record.keep_loss(loss)
        self.loss = loss

    def _is_meant(self, path: str) -> bool:
        """Tell whether a session is no loss: it is left out by a setting, or it is there under another number."""
        return self._tables.has_twin(path) or (self._excluded is not None and self._excluded(f"{path}/"))

    def _is_below_unreadable(self, path: str) -> bool:
        inside = f"{path}/"
        return any(inside.startswith(f"{folder.path}/") for folder in self._unreadable if folder.parent is not None)

    def _drop(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._new.discard(path)
            self._tables.drop_session(path)

    # The first scan.

    def judge_earlier(
        self, known: Iterable[KnownSession], read_rows: Callable[[], Iterable[EarlierRow]]
    ) -> Loss | None:
        """Compare the sessions of earlier tables with those that the first scan has found.

        Parameters
        ----------
        known : iterable of KnownSession
            Of the earlier tables.
        read_rows : callable
            Reads the earlier tables; called only where rows must be held.

        Returns
        -------
        Loss or None
            What is held, or would be held if a person had not accepted the loss.
        """
        accepts, self._accepts = self._accepts, False
        self._new = set()
        there: set[str] = set()
        gone: dict[str, KnownSession] = {}
        for each in known:
            row = next(filter(None, map(self._tables.get, each.spellings)), None)
            if row is not None:
                there.add(row.path)
            elif not all(map(self._is_meant, each.spellings)):
                gone[canonical(each)] = each
        n_known = len(there) + len(gone)
        is_held = bool(gone) and (self._record.was_held or is_too_much(gone.keys(), n_known, there, self._max_fraction))
        if accepts or not is_held:
            self._record.keep_loss(None)
        if not is_held:
            return None
        loss = Loss(len(gone), n_known, self._tables.counts.n_sessions - len(there), self.since)
        if not accepts:
            self._put_back({each.spellings: path for path, each in gone.items()}, read_rows())
            self._held = {path for path in gone if self._tables.get(path) is not None}
            self._note_loss(loss)
        return loss

    def _put_back(self, wanted: dict[tuple[str, ...], str], rows: Iterable[EarlierRow]) -> None:
        """Put rows of earlier tables into the tables, and not into the tree, which is what the disk is."""
        scratch = Tree()
        for spellings, rel_path, file_size, digest in rows:
            path = wanted.get(spellings)
            if path is not None:
                scratch.restore(f"{path}/{rel_path}" if rel_path else path, file_size, digest)
        for session in scratch.take_touched()[0]:
            self._tables.replace_session(session)


def canonical(session: KnownSession) -> str:
    """Return the path that stands for a session of a table: without a lab folder, if the session may be in none."""
    return next((path for path in session.spellings if path.count("/") == 2), session.spellings[0])


def _sessions_below(folder: Folder) -> Iterator[str]:
    """Yield the paths of the sessions that a folder is, or that lie in it."""
    stack = [folder]
    while stack:
        each = stack.pop()
        if each.kind is Kind.SESSION:
            yield each.path
        elif each.kind < Kind.SESSION:
            stack += each.children.values()
