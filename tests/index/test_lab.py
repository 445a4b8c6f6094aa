"""What a user is told of the setting `lab`: with a wrong one, One would look for files where there are none."""

import pytest

from alfwatchd.index.lab import lab_problems
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot

PLAIN, IN_LAB = "s/2020-01-01/001", "cortexlab/Subjects/s/2020-01-01/001"


@pytest.mark.parametrize(
    ("lab", "paths", "kinds"),
    [
        ("", [PLAIN, IN_LAB], []),
        ("cortexlab", [], []),
        ("cortexlab", [IN_LAB], []),
        ("cortexlab", [PLAIN], ["lab_filled"]),
        ("other", [IN_LAB], ["lab_conflict"]),
        ("other", [PLAIN, IN_LAB], ["lab_conflict", "lab_filled"]),
    ],
)
def test_problems_name_the_lab_folders_that_contradict_the_setting(lab, paths, kinds):
    found = lab_problems(lab, Snapshot(1, {path: Session(path, ()) for path in paths}))
    assert [problem.kind for problem in found] == kinds
    for problem in found:
        assert repr(lab) in problem.message
        assert "cortexlab" in problem.message or problem.kind == "lab_filled"
