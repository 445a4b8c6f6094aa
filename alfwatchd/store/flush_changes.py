"""Which sessions a flush changes, found before it writes anything.

Where this process wrote the tables that are there, it knows their rows. Else the tables on disk are read.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from operator import is_not, ne

from alfwatchd.store.changed_sessions import NewRows, Pair, Part, compare_tables
from alfwatchd.tables import columns
from alfwatchd.tables.row_groups import Partition, Plan
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.renames import find_renames
from alfwatchd.tree.rows import Session
from alfwatchd.tree.session_changes import SessionChange, compare_session
from alfwatchd.tree.sessions import Snapshot

_MOST_RENAMED = 1000
"""If more sessions came or went, none is called renamed: a digest of each would be made."""
_MOST_WITH_NAMES = 10_000
"""If more sessions changed, their datasets are counted and not named: a lost disk would take much memory."""
_SUBJECTS = "Subjects"


def find_in_memory(before: Partition, plan: Plan) -> list[SessionChange]:
    """Return how sessions will differ from the rows that this process wrote last, with the same rules.

    Parameters
    ----------
    before : Partition
        What it wrote last.
    plan : Plan
        What it is about to write.
    """
    after = plan.partition
    paths = plan.changed if plan.changed is not None else _differing(before, after)
    renamed = _find_renames(before.sessions, after.sessions, paths)
    back = {new: old for old, new in renamed.items()}
    found, has_names = [], len(paths) <= _MOST_WITH_NAMES
    for path in paths:
        change = compare_session(path, before.sessions.get(path), after.sessions.get(path))
        old, new = before.eids.get(path), after.eids.get(path)
        if old is not None and new is not None and old != new:
            change = replace(change, columns=tuple(sorted({*change.columns, "id"})), eid_before=_text(old))
        if change:
            its_eid = new if new is not None else old
            found.append(
                replace(
                    change,
                    eid=_text(its_eid) if its_eid is not None else "",
                    names=change.names if has_names else (),
                    renamed_from=back.get(path, ""),
                    renamed_to=renamed.get(path, ""),
                )
            )
    return found


def _differing(before: Partition, after: Partition) -> set[str]:
    """Return the paths of sessions that may differ: other rows, or another eid."""
    old, new = before.sessions, after.sessions
    paths = {*compress(new, map(is_not, map(old.get, new), new.values()))}
    paths |= old.keys() - new.keys()
    if before.given is not after.given:
        paths |= {*compress(after.eids, map(ne, map(before.eids.get, after.eids), after.eids.values()))}
    return paths


def _find_renames(old: Mapping[str, Session], new: Mapping[str, Session], paths: Iterable[str]) -> dict[str, str]:
    """Return old path -> new path of the sessions that were renamed."""
    gone = [old[path] for path in paths if path in old and path not in new]
    came = [new[path] for path in paths if path in new and path not in old]
    if not (gone and came) or max(len(gone), len(came)) > _MOST_RENAMED:
        return {}
    return {one.path: other.path for one, other in find_renames(gone, came)}


def find_on_disk(
    old: Pair, plan: Plan, snapshot: Snapshot, rules: TableRules, groups: tuple[Sequence[int], Sequence[int]] | None
) -> list[SessionChange] | None:
    """Return how sessions will differ from tables on disk; None if these lack what is needed to tell.

    Parameters
    ----------
    old : Pair
        The tables on disk.
    plan : Plan
    snapshot : Snapshot
        What is planned.
    rules : TableRules
    groups : tuple or None
        The keys of the row groups of both files, in their order, if they are grouped as planned: then only those are
        compared that the plan writes. None compares everything.
    """
    partition = plan.partition
    if groups is not None:
        wanted = plan.sessions, plan.datasets
        old = Pair(
            *(
                Part(file, [place for place, key in enumerate(keys) if key in some])
                for file, keys, some in zip(old, groups, wanted, strict=True)
            )
        )
    sessions, datasets = sorted(plan.sessions), sorted(plan.datasets)
    new = Pair(
        NewRows(
            columns.sessions_schema(rules),
            len(sessions),
            lambda number: columns.session_rows(partition.sessions_of(sessions[number]), rules),
            lambda number: _span(partition, sessions[number]),
        ),
        NewRows(
            columns.datasets_schema(snapshot, rules),
            len(datasets),
            lambda number: columns.dataset_rows(partition.sessions_of(datasets[number]), rules),
            lambda number: _span(partition, datasets[number]),
        ),
    )
    found = compare_tables(old, new, lambda eid: partition.holder_of(uuid.UUID(eid).bytes))
    return list(_completed(found, partition, rules.lab)) if found is not None else None


def _span(partition: Partition, group: int) -> tuple[str, str] | None:
    members = partition.members[group]
    return (_text(members[0][0]), _text(members[-1][0])) if members else None


def _completed(found: Iterable[SessionChange], partition: Partition, lab: str) -> Iterator[SessionChange]:
    """Yield changes with the paths of folders, where ONE's may differ, and with how many bytes there are now."""
    is_bare = bool(lab) and not any(path.split("/", 2)[1] == _SUBJECTS for path in partition.sessions)
    for change in found:
        path = partition.holder_of(uuid.UUID(change.eid).bytes) if change.kind != "removed" else None
        if path is not None:
            yield replace(change, path=path, bytes_after=partition.sessions[path].n_bytes)
        elif is_bare:
            yield replace(change, path=change.path.removeprefix(f"{lab}/{_SUBJECTS}/"))
        else:
            yield change


def _text(eid: bytes) -> str:
    return str(uuid.UUID(bytes=eid))
