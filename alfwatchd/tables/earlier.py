"""What earlier tables in the output folder know that cannot be derived from the disk, and that is carried over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from alfwatchd.alf import grammar

QC_CATEGORIES = ("NOT_SET", "PASS", "WARNING", "FAIL", "CRITICAL")
"""``one.alf.cache.QC_TYPE``: One compares them in this order, so all five must be there, ordered."""


@dataclass(frozen=True)
class Earlier:
    """What earlier tables in the output folder know that cannot be derived from the disk.

    Parameters
    ----------
    sessions : mapping of str to EarlierSession
        By `SessionKey.eid_path`.
    datasets : mapping of str to mapping of str to EarlierDataset
        By `SessionKey.eid_path`, then rel_path. Only what differs from the default is here.
    lab : str
        Lab that the earlier tables hold for sessions in no lab folder, whatever the `lab` setting is now.
    other_labs : tuple of str
        Labs that still earlier tables held for them.
    relisted : frozenset of str
        ``subject/date/number`` of such sessions that the earlier tables list, though still earlier ones had them with
        another lab: what is kept for that lab is no more theirs.
    is_noted : bool
        Whether all of it is of rows that were not in the earlier tables any more, but went before; see `tables.notes`.
    """

    sessions: Mapping[str, EarlierSession]
    datasets: Mapping[str, Mapping[str, EarlierDataset]]
    lab: str = ""
    other_labs: tuple[str, ...] = ()
    relisted: frozenset[str] = frozenset()
    is_noted: bool = False

    @cached_property
    def shows(self) -> bool:
        """Whether rows differ from those of a fresh index: a digest is only known earlier than one that is made now."""
        rows = (row for some in self.datasets.values() for row in some.values())
        return bool(self.sessions) or any(row.id is not None or row.qc for row in rows)

    @cached_property
    def has_eids(self) -> bool:
        """Whether any session has another eid than the one that its path gives."""
        return any(session.eid is not None for session in self.sessions.values())

    def key_of(self, key: grammar.SessionKey) -> str:
        """Return the key under which a session is known here: tables hold the filled-in lab, paths do not."""
        own = key.eid_path
        other_labs = self.other_labs if own not in self.relisted else ()
        for lab in (self.lab, *other_labs) if not key.lab else ():
            filled = f"{lab}/{own}" if lab else own
            if filled in self.sessions or filled in self.datasets:
                return filled
        return own

    def without_ids(self) -> Earlier:
        """Return what is left where ids are not to be kept."""
        sessions = {key: replace(row, eid=None) for key, row in self.sessions.items()}
        datasets = {
            key: {path: row for path, each in rows.items() if (row := replace(each, id=None)) != NO_DATASET}
            for key, rows in self.datasets.items()
        }
        return replace(
            self,
            sessions={key: row for key, row in sessions.items() if row != NO_SESSION},
            datasets={key: rows for key, rows in datasets.items() if rows},
        )


@dataclass(frozen=True, slots=True)
class EarlierSession:
    """Columns of a session that are carried over.

    Parameters
    ----------
    eid : bytes or None
        16 bytes; None where it is the id that the path gives anyway.
    task_protocol, projects : str
    """

    eid: bytes | None
    task_protocol: str
    projects: str


@dataclass(frozen=True, slots=True)
class EarlierDataset:
    """Columns of a dataset that are carried over.

    Parameters
    ----------
    id : bytes or None
        16 bytes; None where it is the id that the path gives anyway.
    qc : int
        Index into `QC_CATEGORIES`.
    file_size : int or None
        Size in bytes that `digest` was made for.
    digest : bytes
        md5, 16 bytes; empty where unknown.
    """

    id: bytes | None
    qc: int
    file_size: int | None
    digest: bytes


NO_SESSION = EarlierSession(None, "", "")
NO_DATASET = EarlierDataset(None, 0, None, b"")
NOTHING_EARLIER = Earlier({}, {})
