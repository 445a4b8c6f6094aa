"""The sessions in memory, by path, and frozen snapshots of them for other threads."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from alfwatchd.alf.printable import printable
from alfwatchd.tree.rows import Problem, Session

_DIGITS = 3
"""Of the number in the path that ONE makes for a session."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals over the tables; `n_bytes` is the sum of the file sizes in bytes."""

    n_sessions: int = 0
    n_datasets: int = 0
    n_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows at one moment. It never changes, so any thread may read it.

    Parameters
    ----------
    n_changes : int
        How many changes of rows the process had seen. Equal numbers of one process mean equal rows.
    sessions : mapping of str to Session
        Session path -> session. Twins (see `Tables`) are not in it.
    is_held : bool
        Whether some of these sessions are gone and their rows are held until a person decides.
    """

    n_changes: int
    sessions: Mapping[str, Session]
    is_held: bool = False


class Tables:
    """Sessions by path. Owned by one thread.

    Several folders can stand for one session: ``.../1``, ``.../01`` and ``.../001``. They have the same eid, and One
    opens the padded one. So the longest spelling is the row. The others are twins. If the row goes, one of them takes
    its place.
    """

    def __init__(self) -> None:
        self.n_changes = 0
        """How many changes of rows there were so far."""
        self._sessions: dict[str, Session] = {}
        self._twins: dict[str, dict[str, Session]] = {}
        self._unpadded: dict[str, set[str]] = {}
        """Subject folder -> paths below it of the rows whose number has fewer than three digits."""
        self._counts = Counts()
        self._labs: dict[str, Counts] = {}
        self._appeared: list[str] = []
        self._before: dict[str, Session | None] | None = None
        """Path of each session that changed since `take_changed` -> what it was then; None before the first call."""

    @property
    def counts(self) -> Counts:
        """Totals over the rows."""
        return self._counts

    @property
    def labs(self) -> Mapping[str, Counts]:
        """Name of each lab folder -> totals over its rows; an empty name for sessions in none."""
        return self._labs

    def get(self, path: str) -> Session | None:
        """Return the row at a session path, or None."""
        return self._sessions.get(path)

    def paths(self) -> Iterator[str]:
        """Yield the session path of each row."""
        return iter(self._sessions)

    def has_twin(self, path: str) -> bool:
        """Tell whether a row has a twin that would take its place."""
        return bool(self._twins.get(path))

    def replace_session(self, session: Session) -> None:
        """Insert or replace a session with all its datasets."""
        old = self._sessions.get(session.path)
        if old is None:
            rival = self._rival(session)
            if rival is not None:
                if len(rival) > len(session.path):
                    self._twins.setdefault(rival, {})[session.path] = session
                    return
                self._demote(rival, session.path)
        elif old == session:
            return
        if old is None:
            self._appeared.append(session.path)
        self._sessions[session.path] = session
        if old is not None and _shows_same(old, session):
            return  # a `chmod -R` changes no row
        self._count(old, session)

    def drop_session(self, path: str) -> None:
        """Remove a session if it is there; a twin takes its place if it has one."""
        for twins in self._twins.values():
            if twins.pop(path, None) is not None:
                return
        old = self._sessions.pop(path, None)
        if old is None:
            return
        self._count(old, None)
        twins = self._twins.pop(path, {})
        for twin in sorted(twins.values(), key=lambda session: -len(session.path)):
            self.replace_session(twin)

    def take_appeared(self) -> list[str]:
        """Return the paths of the sessions that became rows since the last call."""
        appeared, self._appeared = self._appeared, []
        return appeared

    def take_changed(self) -> dict[str, tuple[Session | None, Session | None]]:
        """Return the sessions whose rows changed since the last call: path -> before and now; None for no row.

        The first call returns nothing: before it, as in a first scan, nothing is noted.
        """
        before, self._before = self._before, {}
        pairs = ((path, (old, self._sessions.get(path))) for path, old in (before or {}).items())
        return {path: pair for path, pair in pairs if pair[0] != pair[1]}

    def stop_noting(self) -> None:
        """Note no changes until the next `take_changed`, which then is the first one."""
        self._before = None

    def snapshot(self) -> Snapshot:
        """Return the tables as they are now; takes one shallow copy of the dict of sessions."""
        return Snapshot(self.n_changes, self._sessions.copy())

    def problems(self) -> list[Problem]:
        """Return one problem for each twin, and one for each subject with numbers that ONE looks for elsewhere."""
        twins = [
            Problem("twin", twin, f"the same session as {path}, which ONE opens instead: merge or rename it")
            for path, twins in sorted(self._twins.items())
            for twin in sorted(twins)
        ]
        return twins + [_say_unpadded(subject, names) for subject, names in sorted(self._unpadded.items())]

    def _rival(self, session: Session) -> str | None:
        """Return the path of the row that stands for the same session under another spelling."""
        folder, _, number = session.path.rpartition("/")
        for width in (1, 2, 3):
            path = f"{folder}/{int(number):0{width}d}"
            if path != session.path and path in self._sessions:
                return path
        return None

    def _demote(self, rival: str, winner: str) -> None:
        """Make the row at `rival`, and its twins, twins of `winner`, which becomes a row next."""
        old = self._sessions.pop(rival)
        self._count(old, None)
        self._twins[winner] = {**self._twins.pop(rival, {}), rival: old}

    def _note_number(self, path: str, *, is_row: bool) -> None:
        subject, date, number = path.rsplit("/", 2)
        if len(number) == _DIGITS:
            return
        names = self._unpadded.setdefault(subject, set())
        (names.add if is_row else names.discard)(f"{date}/{number}")
        if not names:
            del self._unpadded[subject]

    def _count(self, old: Session | None, new: Session | None) -> None:
        if self._before is not None and (session := new or old) is not None:
            self._before.setdefault(session.path, old)
        if old is None or new is None:
            for session in filter(None, (old, new)):
                self._note_number(session.path, is_row=new is not None)
        self._counts = _replaced(self._counts, old, new)
        if (session := new or old) is not None:
            lab = session.key.lab
            self._labs[lab] = _replaced(self._labs.get(lab, Counts()), old, new)
            if not self._labs[lab].n_sessions:
                del self._labs[lab]
        self.n_changes += 1


def _replaced(counts: Counts, old: Session | None, new: Session | None) -> Counts:
    """Return totals in which a session has taken the place of another one; None for no session."""
    return Counts(
        counts.n_sessions + (new is not None) - (old is not None),
        counts.n_datasets + (new.n_datasets if new else 0) - (old.n_datasets if old else 0),
        counts.n_bytes + (new.n_bytes if new else 0) - (old.n_bytes if old else 0),
    )


def _say_unpadded(subject: str, names: set[str]) -> Problem:
    """Say that ONE opens no file of some sessions of a subject, and which command gives them the names that it opens.

    Parameters
    ----------
    subject : str
        Path of the subject's folder.
    names : set of str
        ``date/number`` of each session.
    """
    widths = sorted({len(name.rpartition("/")[2]) for name in names})
    loops = "; ".join(
        f'for d in ????-??-??/{"[0-9]" * width}; do mv -nT "$d" "${{d%/*}}/{"0" * (_DIGITS - width)}${{d##*/}}"; done'
        for width in widths
    )
    example, number = min(names), len(names)
    padded = f"{example.rpartition('/')[0]}/{int(example.rpartition('/')[2]):03d}"
    message = (
        f"{number} session{'s' * (number > 1)} listed whose files One cannot load: it looks in {padded}, and not in "
        f"{example}. To rename the folders, which changes no id, run in the root: "
        f"(cd ./{shlex.quote(subject)} && {loops})"
    )
    return Problem("unpadded_number", printable(subject), printable(message))


def _shows_same(session: Session, other: Session) -> bool:
    """Tell whether two rows of one session differ only in change times and inodes, which no table shows."""
    if session.is_link != other.is_link or len(session.folders) != len(other.folders):
        return False
    return all(
        one is two or (one.folder == two.folder and one.packed.as_shown() == two.packed.as_shown())
        for one, two in zip(session.folders, other.folders, strict=True)
    )


@dataclass(frozen=True, slots=True)
class TablesView:
    """The tables as they are, and what is uncertain about them."""

    snapshot: Snapshot
    unsure: tuple[str, ...]
    """Folders that cannot be read now, whose rows are those of an earlier look."""
    held: str = ""
    """Why rows of sessions that are gone are held; empty if none are."""
    n_mount_changes: int = 0
    """How often mounts at, above or below the root have changed so far: a mount may cover what was seen before."""
    first_seen: Mapping[str, float] = field(default_factory=dict)
    """Session path -> when it was first seen, in seconds since 1970; see `first_seen.FirstSeen`."""
