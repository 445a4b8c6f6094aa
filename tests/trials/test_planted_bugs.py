"""The fuzz finds bugs: each of these, planted into a copy of the package, makes a story of `test_equality` go wrong.

If it did not, a fuzz that finds nothing could be one that can find nothing. A bug is planted by replacing a line. If
that line has changed, `test_the_place_of_each_bug_is_there` says which bug needs another place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "alfwatchd"
SECONDS = 3000
"""For the stories at most: they find each bug within minutes on an idle machine, and a busy one has time."""

BUGS = {
    "folders are listed before they are watched": (
        "index/looker.py",
        "        self._watch.arm(folder, fd)\n        listing = self.scanner.list_folder(fd, folder)\n",
        "        listing = self.scanner.list_folder(fd, folder)\n        self._watch.arm(folder, fd)\n",
    ),
    "an overflow is ignored": (
        "engine/model.py",
        "        self.events_lost += 1\n",
        "        self.events_lost += 1\n        return\n",
    ),
    "what cannot be opened is taken for gone": (
        "index/looker.py",
        "            self._cannot_read(folder, error)\n        else:\n",
        "            self._intake.tree.drop(folder, [])\n        else:\n",
    ),
    "another folder under an old name is taken for the old one": (
        "tree/tree.py",
        "            elif child is None or child.entry_ino != ino or child.is_link != is_link:\n",
        "            elif child is not None and child.entry_ino != ino:\n"
        "                child.entry_ino = ino\n"
        "            elif child is None or child.is_link != is_link:\n",
    ),
    "sync cookies overtake events": (
        "watch/watcher.py",
        "            self._reader.hurry()\n",
        "            self._reader._post(EventsRead(b'', lambda _: [PathsChanged({}, (name,), ())]))\n",
    ),
    "a folder that is watched already is not looked into": (
        "tree/watch_claims.py",
        "        self._by_wd[wd] = (*self._by_wd.get(wd, ()), folder)\n",
        "        self._by_wd[wd] = self._by_wd.get(wd, (folder,))\n",
    ),
    "a path that leads elsewhere for a moment is believed": (
        "index/looker.py",
        "if self._identities.lead_elsewhere(folder, about) or self._guard",
        "if self._guard",
    ),
    "what worker processes have read is taken in whatever happened meanwhile": (
        "index/intake.py",
        "not (folder in self._meanwhile.looked_at or wd in self._meanwhile.told)",
        "True",
    ),
    "a digest is looked up without the change time": (
        "tree/content.py",
        "    return Key(inode_of(signature), either_way(signature)[0])\n",
        "    return Key(inode_of(signature), signature[:24])\n",
    ),
    "a write through a hard link changes the row of one name only": (
        "tree/hard_links.py",
        "    if seen.keys().isdisjoint(rows.packed.inodes()):\n",
        "    if True:\n",
    ),
}


@pytest.mark.parametrize(("file", "right", "wrong"), BUGS.values(), ids=BUGS)
def test_the_place_of_each_bug_is_there(file, right, wrong):
    assert (PACKAGE / file).read_text().count(right) == 1
    assert right != wrong


@pytest.mark.heavy
@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(tmp_path, bug, tally):
    file, right, wrong = BUGS[bug]
    shutil.copytree(PACKAGE, tmp_path / "alfwatchd", ignore=shutil.ignore_patterns("__pycache__"))
    source = (tmp_path / "alfwatchd" / file).read_text()
    (tmp_path / "alfwatchd" / file).write_text(source.replace(right, wrong))
    # `python -m` and `python -c` look for packages in the current folder first: there the copy is.
    assert str(tmp_path) in _run(tmp_path, "-c", "import alfwatchd; print(alfwatchd.__file__)")
    story = f"{TESTS}/trials/test_equality.py::test_seeded_stories"
    settings = [f"--config-file={TESTS.parent}/pyproject.toml", f"--rootdir={TESTS.parent}", "--timeout=0"]
    told = _run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *settings, story)
    assert re.search(r"the story of seed \d+ went wrong", told), told[-2000:]
    tally["faults"] += 1


def _run(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"ALFWATCHD_SEED": "1", "ALFWATCHD_SECONDS": str(SECONDS)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False).stdout
