"""When sessions were first seen: a session that was copied here with its times may be newer than it looks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set

from alfwatchd.alf import grammar
from alfwatchd.errors import StateError
from alfwatchd.index.indexer import Indexer
from alfwatchd.index.state_db import StateDb

_log = logging.getLogger(__name__)


class FirstSeen:
    """Notes when sessions appear. Used by the thread that owns the tables.

    A session that the first scan finds counts as new only if there are earlier tables that do not hold it. So neither a
    first run nor a lost state makes all sessions new.

    Parameters
    ----------
    state : StateDb or None
        None to remember nothing for the next run.
    earlier : set of str or None
        `SessionKey.eid_path` of the sessions in earlier tables, with and without the lab that they were given; None or
        empty if there are no such tables.
    """

    def __init__(self, state: StateDb | None = None, earlier: Set[str] | None = None) -> None:
        self._state = state
        self._earlier: Set[str] | None = earlier or None
        self._has_begun = False
        self._unsaved: dict[str, float] = {}
        self._trouble = ""
        self._times = self._load()

    @property
    def times(self) -> Mapping[str, float]:
        """Session path -> when it was first seen, in seconds since 1970; a copy."""
        return dict(self._times)

    def note(self, indexer: Indexer, now: float) -> None:
        """Note the sessions that appeared since the last call, once a scan is complete.

        Parameters
        ----------
        indexer : Indexer
        now : float
            Seconds since 1970.
        """
        if not indexer.scans_done:
            return
        appeared = indexer.tables.take_appeared()
        if not self._has_begun:
            self._has_begun = True
            appeared = [path for path in appeared if self._is_new(path)]
            self._save([path for path in self._times if indexer.tables.get(path) is None])
        if appeared:
            self._times.update(dict.fromkeys(appeared, now))
            self._unsaved.update(dict.fromkeys(appeared, now))
            self._save()

    def _is_new(self, path: str) -> bool:
        key = grammar.parse_session(path)
        known = self._earlier is None or path in self._times or key is None or key.eid_path in self._earlier
        return not known

    def _load(self) -> dict[str, float]:
        try:
            return self._state.load_first_seen() if self._state is not None else {}
        except StateError as error:
            _log.warning("it is not known when sessions were first seen error=%s", error)
            return {}

    def _save(self, gone: Sequence[str] = ()) -> None:
        """Record new times, and forget those of sessions that are gone."""
        for path in gone:
            del self._times[path]
        if self._state is None or not (gone or self._unsaved):
            return
        try:
            self._state.save_first_seen(self._unsaved, gone)
        except StateError as error:  # tried again with the next session
            if not self._trouble:
                _log.warning("when sessions were first seen is not recorded yet error=%s", error)
            self._trouble = str(error)
        else:
            self._unsaved, self._trouble = {}, ""
