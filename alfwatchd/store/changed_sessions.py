"""Which sessions differ between two versions of the tables, and how.

The rows are read a few row groups at a time: groups that hold the same sessions are compared with each other, and cost
little if they are equal. So a change of one session among a million takes little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.store.parquet import open_checked
from alfwatchd.tables import arrow
from alfwatchd.tree.session_changes import MOST_DATASETS, Kind, SessionChange, name_datasets

_PATH = ("lab", "subject", "date", "number")
_NEEDED = ("eid", "rel_path", "file_size", "id")
_SHOWN = ("hash", "exists", "qc", "default_revision")
_MOST_NAMES = 200_000
"""How many datasets are named in all: a database can change the ids of millions."""
_SLASH = arrow.strings(["/"])[0]  # pyarrow would import pandas to make a scalar of a Python string


class RowGroups(Protocol):
    """Rows in groups: those of a `CheckedFile`, or those that are about to be written."""

    schema_arrow: pa.Schema
    num_row_groups: int

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a group."""


class Pair(NamedTuple):
    """Both tables."""

    sessions: RowGroups
    datasets: RowGroups


class Part:
    """Some row groups of others."""

    def __init__(self, groups: RowGroups, numbers: Sequence[int]) -> None:
        self._groups, self._numbers = groups, numbers
        self.schema_arrow: pa.Schema = groups.schema_arrow
        self.num_row_groups = len(numbers)

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """See `RowGroups`."""
        return self._groups.read_row_group(self._numbers[number], columns)


class NewRows:
    """Row groups that are about to be written, made when they are asked for.

    Parameters
    ----------
    schema : pyarrow.Schema
    n_groups : int
    make : callable
        Gives the rows of a group.
    span : callable
        Gives the lowest and the highest eid that a group may hold; None if it holds no session.
    """

    def __init__(
        self,
        schema: pa.Schema,
        n_groups: int,
        make: Callable[[int], pa.Table],
        span: Callable[[int], tuple[str, str] | None],
    ) -> None:
        self.schema_arrow = schema
        self.num_row_groups = n_groups
        self.span = span
        self._make = make

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """See `RowGroups`."""
        rows = self._make(number)
        return rows.select(list(columns)) if columns is not None else rows


@contextmanager
def open_tables(folder: Path) -> Iterator[Pair | None]:
    """Open both tables in a folder, to be read even after others have replaced them; None if one cannot be read."""
    with ExitStack() as stack:
        pair = None
        with suppress(OSError, pa.ArrowException, ValueError):
            pair = Pair(*(stack.enter_context(open_checked(folder / name)) for name in (SESSIONS, DATASETS)))
        yield pair


def compare_tables(
    old: Pair, new: Pair, path_of: Callable[[str], str | None] | None = None
) -> list[SessionChange] | None:
    """Return how the rows of sessions differ, in the order of paths; None if a table lacks what it needs.

    A dataset is found again by its session and ``rel_path``, also where ids differ. If the eid of a session changes,
    only the numbers of its datasets are compared. How many bytes a session has is not known: `bytes_after` is 0.

    Parameters
    ----------
    old, new : Pair
    path_of : callable or None
        Gives the path of the session that has an eid in the new tables. If it is None, the sessions are looked through.
    """
    try:
        before, after = _Sessions.read(old.sessions), _Sessions.read(new.sessions)
        tally = _compare_datasets(old.datasets, new.datasets)
        found = {path: _Counts() for path in before.rows.keys() ^ after.rows.keys()}
        for path in before.rows.keys() & after.rows.keys():
            if columns := before.differing(after, path):
                found[path] = _Counts(columns=columns)
        paths = before.paths | after.paths
        eids = tally.keys() - paths.keys()
        paths |= _find_paths(new.sessions, eids) if path_of is None else _ask_paths(path_of, eids)
        others = {path: eid for eid, path in paths.items()}
        for eid, counts in tally.items():
            if (its_path := paths.get(eid)) is not None:
                found.setdefault(its_path, _Counts()).add(counts)
        return [_describe(path, found[path], before, after, others.get(path, "")) for path in sorted(found)]
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):  # tables of others hold all kinds of things
        return None


@dataclass(slots=True)
class _Counts:
    n_eids: int = 0
    """Under how many eids these datasets were found."""
    added: int = 0
    changed: int = 0
    removed: int = 0
    n_bytes: int = 0
    columns: set[str] = field(default_factory=set)
    names: dict[str, list[str]] = field(default_factory=lambda: {"+": [], "~": [], "-": []})

    def name(self, sign: str, rel_path: str) -> None:
        if len(self.names[sign]) < MOST_DATASETS:
            self.names[sign].append(rel_path)

    def add(self, other: _Counts) -> None:
        self.n_eids += 1
        self.added += other.added
        self.changed += other.changed
        self.removed += other.removed
        self.n_bytes += other.n_bytes
        self.columns |= other.columns
        for sign, names in other.names.items():
            for each in names:
                self.name(sign, each)


@dataclass(frozen=True, slots=True)
class _Sessions:
    """Rows of a sessions table, by the path that ONE makes of them."""

    names: tuple[str, ...]
    rows: dict[str, tuple[object, ...]]
    paths: dict[str, str]
    """Eid -> path."""

    @classmethod
    def read(cls, file: RowGroups) -> _Sessions:
        parts = [file.read_row_group(each) for each in range(file.num_row_groups)]
        if not parts:
            return cls((), {}, {})
        table = pa.concat_tables(parts)
        names = tuple(table.column_names)
        columns = [_texts(table.column(name)) if name == "id" else table.column(name) for name in names]
        paths = _paths(table)
        rows = dict(zip(paths, zip(*(column.to_pylist() for column in columns), strict=True), strict=True))
        return cls(names, rows, dict(zip(columns[names.index("id")].to_pylist(), paths, strict=True)))

    def eid_of(self, path: str) -> str:
        """Return the eid of the session at a path; empty if none of these sessions has it."""
        return str(self.rows[path][self.names.index("id")]) if path in self.rows else ""

    def differing(self, other: _Sessions, path: str) -> set[str]:
        """Return the columns of one session that differ from those of another table."""
        one, two = self.rows[path], other.rows[path]
        if self.names == other.names and one == two:
            return set()
        values = dict(zip(other.names, two, strict=True))
        return {name for name, value in zip(self.names, one, strict=True) if name in values and values[name] != value}


class _Tally(dict[str, _Counts]):
    """Eid -> how the datasets of the session differ."""

    def __init__(self) -> None:
        self._n_names = 0

    def __missing__(self, eid: str) -> _Counts:
        self[eid] = counts = _Counts()
        return counts

    def name(self, eid: str, sign: str, rel_path: str) -> None:
        """Note the name of a dataset."""
        if self._n_names < _MOST_NAMES:
            self._n_names += 1
            self[eid].name(sign, rel_path)


def _find_paths(file: RowGroups, eids: Set[str]) -> dict[str, str]:
    """Return eid -> path of some sessions."""
    wanted, found = arrow.strings(sorted(eids)), dict[str, str]()
    for number in range(file.num_row_groups if eids else 0):
        table = file.read_row_group(number, ["id", *_PATH])
        own_ids = _texts(table.column("id"))
        is_wanted = pc.is_in(own_ids, value_set=wanted)
        found |= zip(own_ids.filter(is_wanted).to_pylist(), _paths(table.filter(is_wanted)), strict=True)
    return found


def _paths(sessions: pa.Table) -> list[str]:
    keys = (sessions.column(name).to_pylist() for name in _PATH)
    return [_path_of(*parts) for parts in zip(*keys, strict=True)]


def _path_of(lab: str | None, subject: str, date: object, number: int) -> str:
    below = f"{subject}/{date}/{int(number):03d}"
    return f"{lab}/Subjects/{below}" if lab else below


def _ask_paths(path_of: Callable[[str], str | None], eids: Set[str]) -> dict[str, str]:
    asked = ((eid, path_of(eid)) for eid in eids)
    return {eid: path for eid, path in asked if path is not None}


def _describe(path: str, counts: _Counts, before: _Sessions, after: _Sessions, eid: str) -> SessionChange:
    was_there, is_there = path in before.rows, path in after.rows  # in neither where its row is the same in both
    kind: Kind = "changed" if was_there == is_there else "added" if is_there else "removed"
    # Datasets of a session that has another eid now were found as removed and as added.
    is_both = counts.n_eids > 1
    n_both = min(counts.added, counts.removed) if is_both else 0
    added, removed, changed = counts.added - n_both, counts.removed - n_both, counts.changed + n_both
    columns, names = tuple(sorted(counts.columns)), name_datasets(counts.names) if not is_both else ()
    eids = before.eid_of(path), after.eid_of(path)
    return SessionChange(
        path, kind, added, changed, removed, counts.n_bytes, columns, 0, names,
        eids[1] or eids[0] or eid, eids[0] if all(eids) and eids[0] != eids[1] else "",
    )  # fmt: skip


# Datasets.


def _compare_datasets(old: RowGroups, new: RowGroups) -> _Tally:
    """Return eid -> how its datasets differ, for the sessions with datasets that do."""
    both = set(old.schema_arrow.names) & set(new.schema_arrow.names)
    columns = [*_NEEDED, *(name for name in _SHOWN if name in both)]
    tally = _Tally()
    for one, two in _matching_groups(old, new):
        rows = [_read(file, numbers, columns) for file, numbers in ((old, one), (new, two)) if numbers]
        # Arrow would import pandas to make an empty table.
        _compare_rows(rows[0] if one else rows[0].slice(0, 0), rows[-1] if two else rows[0].slice(0, 0), tally)
    return tally


def _matching_groups(old: RowGroups, new: RowGroups) -> Iterator[tuple[list[int], list[int]]]:
    """Yield numbers of row groups of two files, so that sessions of other groups are in neither."""
    spans = sorted([*_spans(old, 0), *_spans(new, 1)], key=itemgetter(0))
    groups: tuple[list[int], list[int]] = ([], [])
    highest = ""
    for low, high, side, number in spans:
        if low > highest and any(groups):
            yield groups
            groups = ([], [])
        groups[side].append(number)
        highest = max(highest, high)
    if any(groups):
        yield groups


def _spans(file: RowGroups, side: int) -> Iterator[tuple[str, str, int, int]]:
    """Yield lowest and highest eid of each row group that has rows."""
    for number in range(file.num_row_groups):
        if isinstance(file, NewRows):
            if (known := file.span(number)) is not None:
                yield *known, side, number
            continue
        eids = _texts(file.read_row_group(number, ["eid"]).column("eid"))
        if len(eids):
            span = pc.min_max(eids)
            yield str(span["min"].as_py()), str(span["max"].as_py()), side, number


def _read(file: RowGroups, numbers: Sequence[int], columns: list[str]) -> pa.Table:
    table = pa.concat_tables([file.read_row_group(number, columns) for number in numbers])
    for name in columns:
        if name != "file_size":
            table = table.set_column(table.schema.get_field_index(name), name, _texts(table.column(name)))
    return table


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values as texts: tables of others have ids, qc and hashes of other types."""
    return column.cast(pa.string())


def _compare_rows(old: pa.Table, new: pa.Table, tally: _Tally) -> None:
    if old.equals(new):
        return
    keys = [pc.binary_join_element_wise(each.column("eid"), each.column("rel_path"), _SLASH) for each in (old, new)]
    places = pc.index_in(keys[1], value_set=_whole(keys[0]))
    is_in_both = pc.is_valid(places)
    _note(new.filter(pc.invert(is_in_both)), 1, tally)
    _note(old.filter(pc.invert(pc.is_in(keys[0], value_set=_whole(keys[1])))), -1, tally)
    new, old = new.filter(is_in_both), old.take(pc.drop_null(places))
    eids = new.column("eid")
    differs = {name: _differs(old.column(name), new.column(name)) for name in new.column_names if name != "eid"}
    is_changed = pc.or_(differs["file_size"], differs["id"])
    if "hash" in differs:  # one that is known now, and was not before, is no other content
        is_changed = pc.or_(is_changed, pc.and_(differs["hash"], pc.is_valid(old.column("hash"))))
    sizes = [each.column("file_size").filter(is_changed).to_pylist() for each in (old, new)]
    names = new.column("rel_path").filter(is_changed).to_pylist()
    for eid, name, before, after in zip(eids.filter(is_changed).to_pylist(), names, *sizes, strict=True):
        counts = tally[eid]
        counts.changed += 1
        tally.name(eid, "~", name)
        counts.n_bytes += (after or 0) - (before or 0)
    for name, mask in differs.items():
        for eid in pc.unique(eids.filter(mask)).to_pylist() if name != "file_size" else ():
            tally[eid].columns.add(name)


def _note(rows: pa.Table, sign: Literal[1, -1], tally: _Tally) -> None:
    """Count rows that came or went."""
    columns = (rows.column(name).to_pylist() for name in ("eid", "rel_path", "file_size"))
    for eid, name, size in zip(*columns, strict=True):
        counts = tally[eid]
        tally.name(eid, "+" if sign > 0 else "-", name)
        counts.added += sign > 0
        counts.removed += sign < 0
        counts.n_bytes += sign * (size or 0)


def _differs(one: pa.ChunkedArray, two: pa.ChunkedArray) -> pa.ChunkedArray:
    is_other = pc.not_equal(one, two)
    return pc.coalesce(is_other, pc.xor(pc.is_null(one), pc.is_null(two)))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
