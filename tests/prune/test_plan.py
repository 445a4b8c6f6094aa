"""A plan cannot change, has an id of its own, and is refused where it would take too much."""

import dataclasses

import pytest

from alfwatchd.errors import PruneRefused
from alfwatchd.prune.plan import FileState, KeptItem, OnDisk, PlannedFile, make_plan, refuse_too_much
from alfwatchd.settings import check_fraction

STATE = FileState(dev=1, ino=7, size=10, mtime_ns=1_700_000_000_000_000_000, ctime_ns=5, btime_ns=6)
ON_DISK = OnDisk(100, 1000)
REFERENCE = ("/reference", "2024-01-01T00:00:00+00:00", 12)
A, B = "a/2020-01-01/001/a.b.c", "b/2020-01-01/001/a.b.c"


def plan(*paths, folders=(), root="/root", reference=REFERENCE, on_disk=ON_DISK, state=STATE):
    return make_plan(root, reference, on_disk, [PlannedFile(path, state) for path in paths], folders)


def test_a_plan_holds_what_its_apply_and_a_person_need():
    made = plan(B, A, folders=["b/2020-01-01/001", "a/2020-01-01/001"])
    assert (made.root, made.reference, made.reference_date, made.reference_generation) == ("/root", *REFERENCE)
    assert (made.n_datasets, made.n_bytes_on_disk, made.n_bytes) == (100, 1000, 20)
    assert made.files == (PlannedFile(A, STATE), PlannedFile(B, STATE))
    assert made.folders == ("a/2020-01-01/001", "b/2020-01-01/001")


def test_a_plan_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan(A).files = ()


def test_the_id_tells_plans_apart():
    plans = [
        plan(A),
        plan(A, B),
        plan(A, folders=["a/2020-01-01/001"]),
        plan(folders=["a/2020-01-01/001"]),
        plan(A, root="/other"),
        plan(A, reference=("/reference", "2024-01-02T00:00:00+00:00", 13)),
        plan(),
    ]
    assert len({made.plan_id for made in plans}) == len(plans)
    assert plan(A, on_disk=OnDisk(7, 7)).plan_id == plan(A).plan_id


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({"size": 11}, False),
        ({"mtime_ns": 0}, False),
        ({"ino": 8}, False),
        ({"dev": 2}, False),
        ({"ctime_ns": 0}, True),
    ],
)
def test_the_id_changes_with_a_file_but_not_by_a_nightly_hard_link(change, is_same):
    assert (plan(A).plan_id == plan(A, state=dataclasses.replace(STATE, **change)).plan_id) == is_same


def test_what_is_kept_makes_no_other_plan():
    made = make_plan("/root", REFERENCE, OnDisk(1, 1), [], [], [KeptItem(A, 1, "newer than the reference")])
    assert made.plan_id == plan().plan_id


# n_datasets and bytes on disk, how many go of 10 bytes each, limit, words of the refusal
FRACTIONS = [
    (10, 1000, 0, 0.0, None),
    (10, 1000, 1, 0.0, "1 of 10 datasets (10.0%)"),
    (10, 1000, 1, 0.1, None),
    (10, 1000, 2, 0.1, "2 of 10 datasets (20.0%)"),
    (100, 1000, 29, 0.29, None),  # 0.29 * 100 is less than 29
    (3, 1000, 3, 0.99, "3 of 3 datasets (100.0%)"),
    (3, 30, 3, 1.0, None),
    (3, 1000, 1, float("nan"), "1 of 3 datasets"),
    (0, 0, 0, 0.1, None),
    (100, 20, 1, 0.1, "10 of 20 bytes (50.0%)"),  # few files that are most of the data
    (100, 0, 1, 0.5, "10 of 0 bytes (100.0%)"),
]


@pytest.mark.parametrize(("n_datasets", "n_bytes", "n_files", "max_fraction", "words"), FRACTIONS)
def test_too_large_a_fraction_is_refused(n_datasets, n_bytes, n_files, max_fraction, words):
    made = plan(*(f"s/2020-01-01/001/a{number}.b.c" for number in range(n_files)), on_disk=OnDisk(n_datasets, n_bytes))
    if words is None:
        refuse_too_much(made, max_fraction)
        return
    with pytest.raises(PruneRefused) as refusal:
        refuse_too_much(made, max_fraction)
    for part in (
        words,
        "/root",
        "/reference",
        REFERENCE[1],
        "generation 12",
        "nothing was deleted",
        "--max-fraction 1",
    ):
        assert part in str(refusal.value)


NO_FRACTIONS = [
    (10.0, "10 is no fraction: for 10 % write 0.1"),
    (2.5, "2.5 is no fraction: for 2.5 % write 0.025"),
    (-0.1, "-0.1 is no fraction: write a number from 0 to 1"),
    (1e9, "1e+09 is no fraction: write a number from 0 to 1"),
    (float("nan"), "nan is no number: write a number from 0 to 1"),
    (float("inf"), "inf is no number: write a number from 0 to 1"),
]


@pytest.mark.parametrize(("value", "message"), NO_FRACTIONS)
def test_what_is_no_fraction_is_refused_with_what_was_meant(value, message):
    with pytest.raises(ValueError, match="is no") as refusal:
        check_fraction(value)
    assert str(refusal.value) == message


@pytest.mark.parametrize("value", [0, 0.1, 1])
def test_fractions(value):
    assert check_fraction(value) == value
