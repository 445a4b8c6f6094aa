"""What the engine counts, for the metrics: made from the status and from what each part counts itself."""

from __future__ import annotations

from collections import Counter

from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.status import find_problems, make_status
from alfwatchd.figures import Figures, add_up, limit_labs
from alfwatchd.tree.rows import PROBLEM_KINDS
from alfwatchd.tree.sessions import Counts


def make_figures(model: EngineModel, now: float) -> Figures:
    """Return what the engine counts. Engine's thread only; `now` is on its clock, in seconds."""
    problems, flushes = find_problems(model), model.flushes
    return Figures(
        status=make_status(model, now, problems),
        labs=_count_labs(model),
        problems=dict.fromkeys(PROBLEM_KINDS, 0) | Counter(problem.kind for problem in problems),
        n_events=model.n_events,
        scans={kind: durations.copy() for kind, durations in model.scans.items()},
        flushes=flushes.durations.copy(),
        n_failed_flushes=flushes.n_failures,
        unsaved_seconds=0.0 if flushes.failing_since is None else now - flushes.failing_since,
    )


def _count_labs(model: EngineModel) -> dict[str, Counts]:
    """Return the rows of each lab; sessions in no lab folder have the lab of the settings, as in the tables."""
    found, lab = dict(model.indexer.tables.labs), model.settings.lab
    if lab and "" in found:
        found[lab] = add_up([found.pop(""), found.get(lab, Counts())])
    return limit_labs(found)
