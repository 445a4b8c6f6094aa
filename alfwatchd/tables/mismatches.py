"""What a person should mend so that the database and the disk agree: names, labs, paths, and the database itself."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property

import numpy as np

from alfwatchd.tables.adoption import AdoptedSession, Adoption, without_lab
from alfwatchd.tables.columns import dataset_paths
from alfwatchd.tables.matching import folded, split_uuid
from alfwatchd.tree.rows import Problem, Session

_MOST_PROBLEMS = 1000
_MOST_UNMATCHED = 20
"""How many sessions of which most datasets do not match are told one by one."""


class Mismatches:
    """Finds what is to be mended. Used by one thread; asked again, it compares only the sessions that have changed.

    Parameters
    ----------
    adoption : Adoption
    """

    def __init__(self, adoption: Adoption) -> None:
        self._adoption = adoption
        self._compared: dict[str, tuple[Session, bool]] = {}
        """Path of a session -> the session as it was compared, and whether most of its datasets do not match."""
        self._said: dict[str, tuple[Session, str]] = {}
        """Path of a session that was told -> the session, and what was told of it."""

    def find(self, sessions: Mapping[str, Session], lab: str) -> list[Problem]:
        """Return what a person should act on.

        Parameters
        ----------
        sessions : mapping of str to Session
            All that are here, by path.
        lab : str
            Lab of those in no lab folder; empty for none.
        """
        found: list[Problem] = []
        known: list[tuple[Session, AdoptedSession]] = []
        strangers: list[tuple[Session, str]] = []
        paths: dict[str, str] = {}
        for session in sessions.values():
            path = replace(session.key, lab=session.key.lab or lab).eid_path
            paths[path] = session.path
            if adopted := self._adoption.session_at(path):
                known.append((session, adopted))
                found += self._other_names(adopted, session)
            elif other := self._folded.get(folded(path)):
                message = f"the database spells it {other}, so nothing is adopted for it: rename one of the two"
                found.append(Problem("adopt_spelling", session.path, message))
            elif path not in self._in_conflict and without_lab(path) not in self._in_conflict:
                strangers.append((session, path))
        found += [*self._conflicts(paths), *self._other_labs(strangers, lab), *self._unmatched(known)]
        return found[:_MOST_PROBLEMS]

    @cached_property
    def _folded(self) -> Mapping[str, str]:
        """Keys of the sessions of the database by how they read where case and composition do not matter."""
        return {folded(path): path for path in self._adoption.sessions}

    @cached_property
    def _in_conflict(self) -> Set[str]:
        """Sessions in a conflict, with the lab that they have in the database, and without it."""
        told = {conflict.session for conflict in self._adoption.conflicts}
        return told | {without_lab(path) for path in told}

    def _other_names(self, known: AdoptedSession, session: Session) -> Iterator[Problem]:
        """Yield the files whose name holds another id than the database has for their path."""
        rows = self._adoption.rows
        for rel_path in session.named_by_uuid:
            bare, own_id = split_uuid(rel_path.encode())
            place = rows.place(known.number, rows.codes.get(bare, -1))
            if own_id is not None and place >= 0 and rows.ids[place].tobytes() != own_id:
                told = uuid.UUID(bytes=rows.ids[place].tobytes())
                message = f"the database has {told} for a dataset of this path: rename the file, or mend the database"
                yield Problem("adopt_conflict", f"{session.path}/{rel_path}", message)

    def _conflicts(self, paths: Mapping[str, str]) -> Iterator[Problem]:
        """Yield the contradictions in sessions that are here one by one, and count the others."""
        elsewhere = []
        for conflict in self._adoption.conflicts:
            path = paths.get(conflict.session) or paths.get(without_lab(conflict.session))
            if path is None:
                elsewhere.append(conflict)
            else:
                yield Problem("adopt_conflict", "/".join(filter(None, [path, conflict.rel_path])), conflict.message)
        if elsewhere:
            example = "/".join(filter(None, elsewhere[0][:2]))
            message = (
                f"the database contradicts itself in {len(elsewhere)} rows of sessions that are not here, such as "
                f"{example}: this changes nothing here; correct the database"
            )
            yield Problem("adopt_conflict", "", message)

    def _other_labs(self, strangers: Sequence[tuple[Session, str]], lab: str) -> Iterator[Problem]:
        """Yield the subjects that have another lab in the database than their folder; count those in no lab folder."""
        subjects: Counter[tuple[str, str]] = Counter()
        filled: Counter[str] = Counter()
        unsure: Counter[str] = Counter()
        for session, path in strangers:
            labs = " and ".join(map(repr, sorted(self._adoption.labs.get(without_lab(path), ()))))
            if labs and session.key.lab:
                subjects[f"{session.key.lab}/Subjects/{session.key.subject}", labs] += 1
            elif labs:
                (filled if lab else unsure)[labs] += 1
        for (path, labs), n in sorted(subjects.items()):
            message = (
                f"the database has {n} sessions of this subject in lab {labs}: move the folder, or correct the lab"
            )
            yield Problem("adopt_lab", path, f"{message} of the subject in the database")
        for labs, n in sorted(filled.items()):
            message = (
                f"{n} sessions in no lab folder have lab {labs} in the database, and not {lab!r}: leave the setting "
                "`lab` empty, and they match by subject, date and number"
            )
            yield Problem("adopt_lab", "", message)
        for labs, n in sorted(unsure.items()):
            message = (
                f"{n} sessions in no lab folder are in {labs} in the database, which does not say which is meant: move "
                "the subjects below LAB/Subjects"
            )
            yield Problem("adopt_lab", "", message)

    def _unmatched(self, known: Sequence[tuple[Session, AdoptedSession]]) -> Iterator[Problem]:
        """Yield the sessions that the database knows while it does not know most of their datasets."""
        before = self._compared
        new = [each for each in known if before.get(each[0].path, _NOT_COMPARED)[0] is not each[0]]
        differ = dict(zip([session.path for session, _ in new], self._compare(new), strict=True))
        self._compared = {
            session.path: (session, differ[session.path]) if session.path in differ else before[session.path]
            for session, _ in known
        }
        told = [each for each in known if self._compared[each[0].path][1]]
        chosen = told if len(told) <= _MOST_UNMATCHED else told[:1]
        self._said = {session.path: self._say(session, adopted) for session, adopted in chosen}
        if len(told) <= _MOST_UNMATCHED:
            for path, (_, reason) in self._said.items():
                yield Problem("adopt_unmatched", path, reason)
            return
        [(example, (_, reason))] = self._said.items()
        message = f"{len(told)} sessions are in the database while most of their datasets are not, such as {example}"
        yield Problem("adopt_unmatched", "", f"{message}: {reason}")

    def _compare(self, known: Sequence[tuple[Session, AdoptedSession]]) -> list[bool]:
        """Tell for each session whether the database lacks most of its datasets."""
        paths, counts = dataset_paths([session for session, _ in known])
        numbers = np.repeat(np.array([adopted.number for _, adopted in known], np.int64), counts)
        n_before = np.concatenate([[0], np.cumsum(self._adoption.rows.exact(numbers, paths) >= 0)])
        ends = np.cumsum(counts, dtype=np.int64)
        n_found = n_before[ends] - n_before[ends - np.array(counts, np.int64)]
        found = []
        for (session, adopted), count, n in zip(known, counts, n_found.tolist(), strict=True):
            most = min(count, adopted.last - adopted.first)
            if 2 * n < most and (session.named_by_uuid or self._adoption.rows.plain):
                n = sum(place >= 0 for place in self._find(session, adopted)[1])
            found.append(2 * n < most)
        return found

    def _find(self, session: Session, adopted: AdoptedSession) -> tuple[Sequence[bytes], Sequence[int]]:
        """Return the paths of a session, and for each its row, also where only one side has a UUID in the name."""
        paths, counts = dataset_paths([session])
        return paths, self._adoption.find([adopted], counts, paths).tolist()

    def _say(self, session: Session, adopted: AdoptedSession) -> tuple[Session, str]:
        """Return a session, and what is told of it, which takes a while; the same as before if it is the same."""
        before = self._said.get(session.path)
        return before if before and before[0] is session else (session, self._say_unmatched(session, adopted))

    def _say_unmatched(self, session: Session, adopted: AdoptedSession) -> str:
        """Return what differs, with an example."""
        paths, places = self._find(session, adopted)
        n_found = sum(place >= 0 for place in places)
        rows = self._adoption.rows
        missing = defaultdict[bytes, list[bytes]](list)
        for row in sorted({*range(adopted.first, adopted.last)} - {*places}):
            path = rows.path_of(row)
            missing[path.rpartition(b"/")[2]].append(path)
        lone = [path for path, place in zip(paths, places, strict=True) if place < 0]
        here = next((path for path in lone if path.rpartition(b"/")[2] in missing), lone[0])
        there = missing.get(here.rpartition(b"/")[2]) or next(iter(missing.values()))
        return (
            f"the database knows {n_found} of the {len(paths)} datasets here, and has {adopted.last - adopted.first}; "
            f"here is {here.decode()}, there is {there[0].decode()}: give both the same collection, revision and name"
        )


_NOT_COMPARED: tuple[Session | None, bool] = (None, False)
