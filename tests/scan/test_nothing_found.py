"""A root without sessions is either the first day of a lab, or a mistake that a person should hear of."""

import pytest

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.scan.nothing_found import look
from kit.trees import fast_folder, index_tree, problems, write


@pytest.fixture
def root():
    with fast_folder() as folder:
        yield folder


EMPTY = [
    [],
    ["lab/Subjects/m1/"],
    ["sessions.pqt", "datasets.pqt", ".alfwatchd.lock", ".sessions.pqt.tmp"],
    ["tables/sessions.pqt", "tables/datasets.pqt", "published/cache_info.json", "published/cache.zip"],
    ["state/state.sqlite", "state/layout.json", "state/cookies/"],
    ["README.md", "config.toml"],
    ["#recycle/old/a.b.c", ".snapshot/h.0/lab/x.mat", "lost+found/x", ".alfwatchd-trash/p/1"],
]


@pytest.mark.parametrize("paths", EMPTY, ids=[str(paths[:1]) for paths in EMPTY])
def test_the_first_day_of_a_lab_is_no_mistake(root, paths):
    """A cron job that fails until the first recording is there would be switched off."""
    write(root, *paths)
    assert look(str(root)) == ""
    assert problems(index_tree(root)) == {}


def test_data_that_one_does_not_read_are_told(root):
    """Without a word, the user believes that the tables are right, and searches for the mistake in ONE."""
    write(root, "Cori_2016-12-14/spikes.times.npy", "Cori_2016-12-14/trials.intervals.npy", "README.md")
    assert "Cori/2016-12-14/001" in look(str(root))
    (problem,) = index_tree(root).problems()
    assert (problem.kind, problem.path) == ("nothing_found", "")
    assert "Cori/2016-12-14/001" in problem.message


def test_a_link_is_something(root):
    (root / "lab").symlink_to("/nonexistent")
    assert look(str(root))


def test_what_is_excluded_is_nothing(root):
    write(root, "videos/x.mp4", "a.b.c")
    assert look(str(root), compile_exclude(["videos/", "*.c"])) == ""


def test_no_large_tree_is_walked(root):
    """On a network mount, a look into each folder of a wrong root would take hours."""
    write(root, *(f"a{number:03d}/b/c/d/" for number in range(300)), "z/y/x/w.mat")
    assert look(str(root)) == ""


def test_a_session_that_comes_ends_the_problem(root):
    write(root, "junk/x.mat")
    indexer = index_tree(root)
    assert problems(indexer) == {"": "nothing_found"}
    write(root, "s/2020-01-01/001/a.b.c")
    assert problems(index_tree(root)) == {}
