"""A plan of a prune without a daemon. `tests/system` asks daemons, and lets plans be applied."""

from __future__ import annotations

import json
import shutil

import pytest

from kit.program import make_small_tree, walk


@pytest.fixture
def tree(tmp_path, run):
    """A root, its flags, and reference tables that lack one dataset."""
    root = make_small_tree(tmp_path / "root")
    places = [f"--root={root}", f"--state-dir={tmp_path / 'state'}", "--scan-workers=1"]
    assert run("--once", *places).code == 0
    reference = tmp_path / "reference"
    reference.mkdir()
    for name in ("sessions.pqt", "datasets.pqt"):
        shutil.copy(root / name, reference)
    (root / "lab/Subjects/s1/2020-01-01/001/alf/spikes.depths.npy").write_bytes(b"12345")
    return root, places, reference


def test_a_plan_touches_nothing_and_says_how_to_go_on(tree, run):
    """A user looks first, and deletes later."""
    root, places, reference = tree
    before = walk(root)
    ended = run("prune", *places, f"--reference={reference}", "--newer")
    assert ended.code == 0
    assert "would go: lab/Subjects/s1/2020-01-01/001/alf/spikes.depths.npy (5 B)" in ended.out
    assert "nothing was touched; add --apply to carry this out" in ended.out
    assert walk(root) == before


def test_the_scan_uses_the_settings_of_the_command_line(tree, run):
    """What the user leaves out of the tables is not for prune to delete."""
    _, places, reference = tree
    command = ["prune", *places, f"--reference={reference}", "--newer", "--json"]
    assert len(json.loads(run(*command).out)["files"]) == 1
    assert json.loads(run(*command, "--exclude=spikes.depths.npy").out)["files"] == []


def test_nothing_is_applied_without_a_reference(tree, run):
    """Without reference tables nothing says what should stay."""
    root, places, _ = tree
    before = walk(root)
    ended = run("prune", *places, "--apply")
    assert ended.code == 2
    assert "--reference" in ended.err
    assert walk(root) == before
