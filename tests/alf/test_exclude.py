"""What `exclude` names is never indexed, hashed or pruned; everything else is."""

import re
import tomllib
from pathlib import Path

import pytest

from alfwatchd.alf import grammar
from alfwatchd.alf.exclude import compile_exclude

S1 = "s/2020-01-01/001"

# (patterns, paths that are left out, paths that are not); a folder ends in a slash, as the scanner asks for it
CASES = [
    (["*.tmp"], ["a.tmp", "s/a.tmp", f"{S1}/alf/a.b.tmp", "x.tmp/"], ["a.tmpx", "tmp", f"{S1}/alf/a.tmp.npy"]),
    (["/test_*/"], ["test_a/", "test_/"], ["s/test_a/", "test_a", "a_test_/"]),
    (["/lab/Subjects/test_*/"], ["lab/Subjects/test_1/"], ["lab2/Subjects/test_1/", "lab/Subjects/real/", "lab/"]),
    (["test_*/"], ["test_a/", "s/test_a/", f"{S1}/test_a/"], ["test_a", "s/"]),
    (["raw_video_data/"], [f"{S1}/raw_video_data/"], ["raw_video_data", f"{S1}/raw_video_data2/"]),
    (["*.mp4", "!keep.*.mp4"], [f"{S1}/a.b.mp4"], [f"{S1}/keep.b.mp4"]),
    (["!keep.*.mp4", "*.mp4"], [f"{S1}/a.b.mp4", f"{S1}/keep.b.mp4"], [f"{S1}/a.b.npy"]),
    (["**/alf/*.npy"], [f"{S1}/alf/a.b.npy", "alf/a.b.npy"], [f"{S1}/alf/probe00/a.b.npy", f"{S1}/a.b.npy"]),
    ([r"\#2020-01-01#/"], [f"{S1}/alf/#2020-01-01#/"], [f"{S1}/alf/#2020-01-02#/"]),
    (["a?c"], ["abc", "s/axc"], ["ac", "abbc", "a/c"]),
    (["[ab].b.c"], ["a.b.c"], ["c.b.c"]),
    (["#no pattern", "", "  ", "a.b.c"], ["a.b.c"], ["#no pattern", "x"]),
    (["Ä*"], ["Äpfel.b.c"], ["äpfel.b.c"]),
    (["s/"], ["s/", f"{S1}/alf/a.b.c"], ["s"]),  # what lies in a folder that is left out is left out
]


@pytest.mark.parametrize(("patterns", "out", "kept"), CASES, ids=[", ".join(case[0]) for case in CASES])
def test_patterns(patterns, out, kept):
    excluded = compile_exclude(patterns)
    assert [path for path in [*out, *kept] if excluded(path)] == out


def test_names_that_are_not_utf_8_are_matched_like_others():
    excluded = compile_exclude(["*.tmp"])
    assert [excluded("s\udcff/a.tmp"), excluded("s\udcff.npy")] == [True, False]


@pytest.mark.parametrize("patterns", [[], [""], ["  ", "\t"]])
def test_without_patterns_no_time_is_spent_on_them(patterns):
    assert compile_exclude(patterns) is None


@pytest.mark.parametrize("pattern", ["!", "\\", "a.b\\"])
def test_a_pattern_that_is_not_valid_is_named(pattern):
    with pytest.raises(ValueError, match=re.escape(repr(pattern))):
        compile_exclude(["fine", pattern])


# What sync, copy and archive programs leave in a session (rclone#3612, syncthing, WinSCP, browsers, aria2, macOS).
LITTER = [
    *(f"spikes.times.npy{end}" for end in (".part", ".partial", ".3f2a91bc.partial", ".filepart", ".crdownload")),
    *(f"spikes.times.npy{end}" for end in (".aria2", ".tmp", ".bak", ".orig", "_Zone.Identifier")),
    "spikes.times.sync-conflict-20240506-101010-ABCDEFG.npy",
]
LITTER_FOLDERS = [".AppleDouble/", ".dropbox.cache/", ".stversions/", ".rsync-partial/", ".~tmp~/", "__MACOSX/"]


def test_what_the_guide_excludes_are_files_of_other_programs_that_one_takes_for_datasets():
    page = (Path(__file__).parents[2] / "docs" / "guide" / "trees.md").read_text()
    (example,) = re.findall(r"^exclude = \[.*?^\]$", page, re.DOTALL | re.MULTILINE)
    excluded = compile_exclude(tomllib.loads(example)["exclude"])
    for name in LITTER:
        assert grammar.is_dataset_name(name), name
        assert excluded(f"{S1}/alf/{name}"), name
    for name in LITTER_FOLDERS:
        assert excluded(f"{S1}/alf/{name}"), name
    for name in ("spikes.times.npy", "_ibl_trials.table.pqt", "_spikeglx_ephysData_g0_t0.imec0.ap.cbin", "a.part.npy"):
        assert not excluded(f"{S1}/alf/{name}"), name
