"""A pattern finds the datasets that a person means, and no others."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one.alf.path import ALFPath

from alfwatchd.alf.patterns import DatasetPattern, missing, short_name

# (pattern, paths that it matches, paths that it does not match)
CASES = [
    (
        "spikes.times",
        ["spikes.times.npy", "alf/probe00/spikes.times.npy", "alf/#2020-01-01#/_ks_spikes.times.npy",
         "spikes.times_ephysClock.npy", "spikes.times.part1.part2.tsv", "spikes.times.npy\n"],
        ["spikes.timestamps.npy", "spike.times.npy", "alf/spikes.times/a.b.npy", "allspikes.times.npy",
         "spikes.start_times.npy", "templates.spikes.times.npy", "spikes.times"],
    ),
    ("trials.goCue", ["_ibl_trials.goCue.npy"], ["_ibl_trials.goCue_times.npy"]),
    ("trials.goCue_times", ["_ibl_trials.goCue_times.npy", "trials.goCue_times_bpod.npy"], ["trials.goCue.npy"]),
    ("_ibl_trials.table", ["alf/_ibl_trials.table.pqt"], ["alf/trials.table.pqt", "_iblrig_trials.table.pqt"]),
    ("wheel.times_bpod", ["wheel.times_bpod.npy"], ["wheel.times.npy", "wheel.times_nidq.npy"]),
    ("spikes.times.npy", ["a/spikes.times.npy", "_x_spikes.times.1.npy"], ["spikes.times.csv"]),
    ("spikes.times.1.npy", ["spikes.times.1.npy"], ["spikes.times.npy", "spikes.times.2.npy"]),
    ("spikes.*", ["spikes.times.npy", "alf/probe00/spikes.amps.npy"], ["alf/_ks_spikes.times.npy", "spikes2.a.npy"]),
    ("*spikes*", ["alf/spikes.times.npy", "spikes_old/a.b.npy"], ["alf/Spikes.times.npy", "a.b.npy"]),
    ("alf/*/spikes.*", ["alf/probe00/spikes.a.npy", "alf/a/b/spikes.a.npy"], ["alf/spikes.a.npy", "x/alf/a/spikes.b"]),
    ("alf/a.b.npy", ["alf/a.b.npy"], ["a.b.npy", "x/alf/a.b.npy"]),
    ("a.[bc].np?", ["a.b.npy", "x/a.c.npz"], ["a.d.npy"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meant", "others"), CASES, ids=[case[0] for case in CASES])
def test_patterns(text, meant, others):
    pattern = DatasetPattern.parse(text)
    assert [path for path in [*meant, *others] if pattern.matches(path)] == meant


WRONG = [
    ("", "is a variable not set?"),
    (" \t", "is a variable not set?"),
    ("spikes", "write spikes.ATTRIBUTE, or spikes.* for all of them"),
    ("spikes.ti-mes", "write OBJECT.ATTRIBUTE as in spikes.times"),
    (".times", "write OBJECT.ATTRIBUTE as in spikes.times"),
    ("spikes.times\n", "control character"),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_what_can_match_no_dataset_is_refused(text, says):
    """A condition that is never met looks like a session that is never complete."""
    with pytest.raises(ValueError, match=re.escape(says)):
        DatasetPattern.parse(text)


def test_what_is_missing_is_told_in_the_order_of_what_is_required():
    required = [DatasetPattern.parse(text) for text in ("trials.table", "spikes.times", "alf/*")]
    assert missing(required, ["alf/spikes.times.npy"]) == (required[0],)
    assert missing(required, []) == tuple(required)
    assert missing([], ["a.b.c"]) == ()


words = st.sampled_from(["a", "Z9", "spikes", "times", "intervals", "x_times", "x_intervals", "_ns_b"])
timescales = st.sampled_from(["", "_bpod", "_times", "_a_b"])
namespaces = st.sampled_from(["", "_", "_ibl_", "__"])
extras = st.lists(st.sampled_from(["1", "a-b", "x_y"]), max_size=2)


@given(namespaces, words, words, timescales, extras)
def test_the_parts_are_those_of_one(namespace, an_object, attribute, timescale, extra):
    """`alfwatchd ls --having a.b` and `One.load_dataset(eid, 'a.b')` mean the same files."""
    name = ".".join([namespace + an_object, attribute + timescale, *extra, "npy"])
    parts = ALFPath(name).parse_alf_name(as_dict=True)
    if namespace in ("_", "__") or an_object == "_ns_b":
        assert DatasetPattern.parse(short_name(name)).matches(name)  # ONE cuts such names in the middle of a word
        return
    assert short_name(f"alf/{name}") == f"{parts['object']}.{parts['attribute']}"
    end = f"_{parts['timescale']}" if parts["timescale"] else ""
    assert DatasetPattern.parse(short_name(name)).matches(name)
    assert DatasetPattern.parse(f"{short_name(name)}{end}").matches(name)
    assert DatasetPattern.parse(name).matches(f"alf/#r1#/{name}")
