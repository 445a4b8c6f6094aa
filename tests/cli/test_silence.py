"""A command that did not do what it was asked says so, in words that help, and ends with the right code."""

from __future__ import annotations

import gc
import re
from dataclasses import dataclass

import pytest

from kit.program import make_small_tree


@dataclass(frozen=True)
class Case:
    """A command line, with {} for the folder of the test, and what a person must learn from it."""

    words: str
    code: int
    says: str
    environ: tuple[str, str] | None = None
    config: str = ""


CASES = {
    "a root that is not there": Case(
        "--once --root {}/nope", 1, r"/nope: the root does not exist: check how it is spelled, and whether its disk is"
    ),
    "a root that is a file": Case("--once --root {}/file", 1, "/file: the root is a file; give the folder"),
    "a flag with a typing error": Case("--rot demo", 2, "^alfwatchd: unknown flag --rot; did you mean --root\\?\n$"),
    "a command with a typing error": Case("statsu", 2, "^alfwatchd: .*'statsu'; did you mean `alfwatchd status`\\?\n$"),
    "a command that is a flag": Case("help", 2, "^alfwatchd: .*'help'; did you mean `alfwatchd --help`\\?\n$"),
    "text for a number": Case(
        "config --root {}/root", 78, r"= 'abc' \(environment \S+\): should be a number of seconds\n$",
        environ=("ALFWATCHD_FLUSH_INTERVAL_SECONDS", "abc"),
    ),
    "a percentage for a fraction": Case(
        "prune --root {}/root --reference {}/root --max-fraction 10", 2, "10 is no fraction: for 10 % write 0.1"
    ),
    "prune without reference": Case("prune --root {}/root", 0, "so there is nothing to delete; name tables"),
    "prune --apply without reference": Case("prune --root {}/root --apply", 2, "without a reference there is nothing"),
    "a target that is the root": Case(
        "--once --root {}/root", 78, "/root is the root, and would get cache.zip", config='[[publish]]\ntarget = "root"'
    ),
    "tables in the folder of a lab": Case(
        "--once --root {}/root --out-dir {}/root/lab", 0, "WARNING out_dir lies among the data: One opens tables in"
    ),
    "a state folder that cannot be made": Case(
        "--once --root {}/root --state-dir {}/file/x", 1, r"^alfwatchd: \S+/file/x: user .* cannot keep state here"
    ),
    "a socket that cannot be made": Case("status --socket {}/nope/s", 3, "/nope/s"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_person_learns_what_to_do(name, tmp_path, run, monkeypatch):
    case = CASES[name]
    make_small_tree(tmp_path / "root", subjects=["s1"])
    (tmp_path / "file").touch()
    words = case.words.replace("{}", str(tmp_path)).split()
    if case.config:
        (tmp_path / "c.toml").write_text(case.config)
        words.append(f"--config={tmp_path / 'c.toml'}")
    if case.environ:
        monkeypatch.setenv(*case.environ)
    try:
        ended = run(*words)
    finally:
        gc.enable()  # `--once` disables it, as the process ends with the command
    assert ended.code == case.code
    assert re.search(case.says, ended.err or ended.out), ended
    assert "Traceback" not in ended.err


def test_no_path_is_told_twice(tmp_path, run):
    """`errno 20: '/x/y': '/x/y'` is not a sentence."""
    (tmp_path / "file").touch()
    make_small_tree(tmp_path / "root", subjects=["s1"])
    ended = run("--once", "--root", tmp_path / "root", "--state-dir", tmp_path / "file/x")
    assert ended.err.count(str(tmp_path / "file/x")) == 1
    assert "Errno" not in ended.err
    gc.enable()


def test_ids_of_ones_own_tables_that_cannot_be_kept_are_told(tmp_path, run):
    """Moving from ONE's tables, all rows seemed to be removed and others added: datasets of equal path share an id."""
    from one.alf.cache import make_parquet_db

    root = make_small_tree(tmp_path / "root")
    make_parquet_db(root, hash_files=False)
    ended = run("--once", "--root", root)
    gc.enable()
    assert ended.code == 0
    assert re.search(r"WARNING ids of earlier tables cannot be kept, .* n=12 reason='several datasets have", ended.err)
    assert "cannot be kept" not in run("--once", "--root", root).err
    gc.enable()
