"""One look at the database: what it knows now, and which of it can be adopted."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from alfwatchd.addresses import shown
from alfwatchd.database import local_copy
from alfwatchd.database.sources import read_source
from alfwatchd.errors import AlfwatchdError, SourceError
from alfwatchd.settings import Adopt
from alfwatchd.tables.adoption import Adoption, adopt
from alfwatchd.tables.mismatches import Mismatches
from alfwatchd.tree.rows import Problem
from alfwatchd.tree.sessions import Snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at the source gave.

    Parameters
    ----------
    adoption : Adoption or None
        None if nothing changes.
    error : str
        Why the source could not be read; empty if it could.
    """

    adoption: Adoption | None
    error: str


NOTHING_READ = Reading(None, "")


def look(settings: Adopt, state_dir: Path, in_force: Adoption | None = None) -> Reading:
    """Look whether the source has changed. Any thread; may take minutes if the source is far away.

    Parameters
    ----------
    settings : Adopt
        With a source.
    state_dir : Path
        Where the last tables that could be read are kept.
    in_force : Adoption or None
        What is adopted already.
    """
    try:
        found = read_source(settings.source, local_copy.copied_version(state_dir, settings.source), state_dir)
        if found is None and in_force is None:
            if (known := recall(settings, state_dir)) is not None:
                return Reading(known, "")
            found = read_source(settings.source, None, state_dir)  # the copy is damaged
        if found is None:
            return NOTHING_READ
        copy = local_copy.Copy(found.sessions, found.datasets, found.version)
        adoption = _adopt(settings, state_dir, copy, is_new=True)
        if in_force is not None and in_force.digest == adoption.digest:
            return NOTHING_READ  # the same in other words: the tables stay as they are
        return Reading(adoption, "")
    except AlfwatchdError as error:
        return Reading(None if in_force is not None else recall(settings, state_dir), str(error))


def recall(settings: Adopt, state_dir: Path) -> Adoption | None:
    """Return what was adopted last from this source, without a look at it; None if nothing was."""
    copy = local_copy.load(state_dir, settings.source)
    with suppress(SourceError):
        return None if copy is None else _adopt(settings, state_dir, copy, is_new=False)
    return None


def _adopt(settings: Adopt, state_dir: Path, copy: local_copy.Copy, *, is_new: bool) -> Adoption:
    """Return what can be adopted of a copy; keep the copy for the next start if it says something new."""
    try:
        adoption = adopt(copy.sessions, copy.datasets, keep_missing=settings.keep_missing)
    except (ArithmeticError, ValueError, pa.ArrowException) as error:  # numbers and dates beyond all bounds
        raise SourceError(
            f"{shown(settings.source)}: its tables make no sense: {error}; have Alyx write them again"
        ) from error
    if is_new or local_copy.kept_digest(state_dir, settings.source) != adoption.digest:
        try:
            local_copy.save(state_dir, settings.source, copy, adoption.digest)
        except OSError as caught:
            _log.warning("adopted tables are not kept, so a restart needs the source error=%s", caught)
    return adoption


def find_problems(error: str, mismatches: Mismatches | None, snapshot: Snapshot, lab: str) -> list[Problem]:
    """Return what a person should act on: the source, its contradictions, and what nearly agrees.

    Parameters
    ----------
    error : str
        Why the source could not be read; empty if it could.
    mismatches : Mismatches or None
        Of what is in force; None if nothing is.
    snapshot : Snapshot
    lab : str
        Lab of sessions in no lab folder; empty for none.
    """
    found = [Problem("adopt_source", "", error)] if error else []
    return found + (mismatches.find(snapshot.sessions, lab) if mismatches is not None else [])
