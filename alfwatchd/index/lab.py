"""Whether sessions in no lab folder and the setting `lab` go together."""

from __future__ import annotations

from alfwatchd.tree.rows import Problem
from alfwatchd.tree.sessions import Snapshot


def lab_problems(lab: str, snapshot: Snapshot) -> list[Problem]:
    """Return what a person should know of the `lab` setting: a conflict, and what it means to One."""
    if not lab:
        return []
    labs = {session.key.lab for session in snapshot.sessions.values()}
    found = []
    if labs - {"", lab}:
        message = (
            f"lab name conflict: lab = {lab!r}, but there are lab folders {', '.join(sorted(labs - {'', lab}))}; "
            "a folder's own lab wins, so leave the setting empty"
        )
        found.append(Problem("lab_conflict", "", message))
    if "" in labs:
        message = (
            f"sessions in no lab folder are listed under lab {lab!r}, and One looks for their files below "
            f"{lab}/Subjects/: move them there, or leave the setting empty"
        )
        found.append(Problem("lab_filled", "", message))
    return found
