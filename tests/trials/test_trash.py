"""Undo under kill -9: of functions before each of their calls, and of the real program at random moments."""

import random
import subprocess
import time

import pytest

from alfwatchd.alf.grammar import TRASH
from kit.program import PROGRAM, make_small_tree, program
from kit.prune import write
from kit.trash import kill_everywhere, look

pytestmark = pytest.mark.heavy


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("step", ["prune", "undo", "empty"])
@pytest.mark.parametrize("flag", [True, False], ids=["flag", "no flag"])
def test_kills_before_each_call(tmp_path, step, flag, tally):
    tally["kills"] += kill_everywhere(tmp_path / "root", step, has_flag=flag, stride=1)


@pytest.mark.timeout(1200)
def test_kills_of_the_program_lose_no_file_and_undo_brings_all_back(tmp_path, scale, tally):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it if the test fails
    root, out_dir, reference = tmp_path / "root", tmp_path / "tables", tmp_path / "reference"
    for folder in (out_dir, reference):
        folder.mkdir()
    make_small_tree(root)
    with program(root, out_dir) as made:
        made.run_once()
        for name in ("sessions.pqt", "datasets.pqt"):
            (reference / name).write_bytes((out_dir / name).read_bytes())
        where = "lab/Subjects/new{}/2020-02-02/001/alf/a{}.b.npy"
        write(root, *(where.format(number, file) for number in range(20) for file in range(10)))
        for number, folder in enumerate(sorted(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod((0o755, 0o2770, 0o1777, 0o700)[number % 4])
        before = look(root)
        prune = ["prune", *made.places, f"--reference={reference}", "--newer", "--apply", "--max-fraction=1"]
        for _ in range(scale(3, 60)):
            _run_and_kill(made, prune, chance)
            tally["kills"] += 1
            for plan in _plans(root):
                for _ in range(chance.randrange(3)):
                    _run_and_kill(made, ["prune", *made.places, f"--undo={plan}"], chance)
                    tally["kills"] += 1
            for plan in _plans(root):
                made.run_bare("prune", *made.places, f"--undo={plan}")
            assert look(root) == before
            assert not (root / TRASH).exists()
            tally["comparisons"] += 1


def _plans(root):
    return sorted(path.name for path in (root / TRASH).glob("*")) if (root / TRASH).exists() else []


def _run_and_kill(made, command, chance):
    """Kill a command at a random moment of its work, or just after its end."""
    process = subprocess.Popen(
        [PROGRAM, *command], env=made.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    for _ in range(chance.randrange(1, 250)):  # lines that tell of one file or folder each
        if not process.stderr.readline():
            break
    time.sleep(chance.random() * 0.002)
    process.kill()
    process.wait()
    process.stderr.close()
