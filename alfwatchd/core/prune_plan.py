"""Which dataset files and session folders are not in the reference tables: a plan, made from values only."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from alfwatchd.core.rows import Signature


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference tables, as far as prune needs them.

    Parameters
    ----------
    source : str
        Where they were read, for messages.
    sessions : mapping of str to set of str
        `SessionKey.eid_path` -> rel_path of its datasets; sessions without datasets are there too.
    """

    source: str
    sessions: Mapping[str, AbstractSet[str]]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A dataset file to delete, and what it looked like when that was decided."""

    path: str
    """Relative to the root."""
    signature: Signature


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune would delete; nothing else is ever deleted by it.

    Parameters
    ----------
    plan_id : str
        A digest of the plan, so that the same plan has the same id.
    reference : str
    n_datasets : int
        Datasets on disk.
    files : tuple of PlannedFile
        Sorted by path.
    folders : tuple of str
        Session folders that may go once they are empty, sorted by path, relative to the root.
    """

    plan_id: str
    reference: str
    n_datasets: int
    files: tuple[PlannedFile, ...]
    folders: tuple[str, ...]
