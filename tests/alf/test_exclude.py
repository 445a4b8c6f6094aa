"""What `exclude` names is never indexed, hashed or pruned; everything else is."""

import re

import pytest

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
