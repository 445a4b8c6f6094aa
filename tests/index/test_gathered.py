"""A lab that records in a wrong layout for a year hears of it once for each subject, and not once for each day."""

from alfwatchd.index.gathered import gather
from alfwatchd.tree.rows import Problem


def of(kind, *paths):
    return [Problem(kind, path, "mend it") for path in paths]


def test_many_problems_of_a_subject_are_one():
    days = [f"lab/Subjects/s/2020-01-{day:02d}" for day in range(1, 30)]
    (found,) = gather(of("no_number", *reversed(days)))
    assert (found.kind, found.path) == ("no_number", "lab/Subjects/s")
    three = "2020-01-01, 2020-01-02, 2020-01-03"
    assert found.message == f"in {three} and 26 more places, of which this is the first: mend it"


def test_few_problems_and_those_of_other_kinds_and_subjects_stay_apart():
    few = of("no_number", "s/2020-01-01", "s/2020-01-02", "t/2020-01-01", "t/2020-01-02")
    links = of("link_not_followed", "lab1", "lab/Subjects", "s/2020-01-01/001/alf", "s/2020-01-02/001/alf")
    others = of("unreadable", *(f"s/2020-01-{day:02d}" for day in range(1, 9)))
    assert sorted(gather(few + links + others), key=str) == sorted(few + links + others, key=str)


def test_each_link_of_a_farm_is_named():
    links = of("link_not_followed", *(f"lab{number}/Subjects" for number in range(9)))
    assert gather(links) == links
