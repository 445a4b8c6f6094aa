"""A session that lacks a dataset is not sorted, and one that is complete is not sorted twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.follow.completeness import Criteria, Dataset, Digest
from kit.follow import RAW, SPIKES, TRIALS, complete, make_session, path_of


def required(criteria: Criteria, *datasets: str) -> list[str] | None:
    found = criteria.find_required(make_session(1, *datasets).datasets)
    return None if found is None else [each.rel_path for each in found]


@pytest.mark.parametrize(
    ("criteria", "datasets", "expected"),
    [
        (complete("spikes.times"), [SPIKES, TRIALS], [SPIKES]),
        (complete("spikes.times", "trials.table"), [SPIKES], None),
        (complete("spikes.times", "trials.table"), [SPIKES, TRIALS, RAW], [SPIKES, TRIALS]),
        (complete("ephysData.raw", lacking=("spikes.times",)), [RAW], [RAW]),
        (complete("ephysData.raw", lacking=("spikes.times",)), [RAW, SPIKES], None),
        (complete(quiet=5), [SPIKES, TRIALS], [SPIKES, TRIALS]),
        (complete(quiet=5), [], None),
        (complete("alf/*/spikes.*"), [SPIKES], [SPIKES]),
        (complete("alf/*/spikes.*"), [TRIALS], None),
    ],
)
def test_what_is_required(criteria: Criteria, datasets: list[str], expected: list[str] | None) -> None:
    assert required(criteria, *datasets) == expected


@pytest.mark.parametrize(
    ("labs", "subjects", "is_meant"),
    [((), (), True), (("lab",), (), True), (("la*",), ("mouse",), True), (("other",), (), False), ((), ("rat",), False),
     (("other", "lab"), (), True)],
)  # fmt: skip
def test_labs_and_subjects(labs: tuple[str, ...], subjects: tuple[str, ...], is_meant: bool) -> None:
    assert Criteria(labs, subjects).is_meant(path_of(1)) == is_meant


def test_a_session_in_no_lab_folder_is_of_the_lab_that_a_setting_names():
    assert Criteria(labs=("cortex",), own_lab="cortex").is_meant("mouse/2021-02-01/001")
    assert not Criteria(labs=("cortex",), own_lab="cortex").is_meant(path_of(1))


DATASETS = st.lists(
    st.builds(Dataset, st.sampled_from([SPIKES, TRIALS, RAW]), st.integers(0, 2), st.sampled_from([None, "a", "b"])),
    unique_by=lambda each: each.rel_path,
)


@given(DATASETS, st.randoms())
def test_the_order_of_datasets_does_not_matter(datasets, random):
    other = datasets[:]
    random.shuffle(other)
    assert Digest.of(datasets) == Digest.of(other)


@given(DATASETS, DATASETS)
def test_a_digest_differs_where_names_sizes_or_known_hashes_do(one, two):
    """A hash that is not known yet proves nothing: else each session would be told again when it is computed."""
    are_known = all(each.hash for each in one + two)
    sizes, hashes = ([sorted((each.rel_path, each[place]) for each in rows) for rows in (one, two)] for place in (1, 2))
    expected = sizes[0] == sizes[1] and (not are_known or hashes[0] == hashes[1])
    assert Digest.of(one).is_same(Digest.of(two)) == expected
    assert Digest.of(two).is_same(Digest.of(one)) == expected
