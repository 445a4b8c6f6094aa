"""A folder is watched as long as it is there, and no watch is kept or removed for the wrong one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.alf.grammar import Kind
from alfwatchd.tree.folder import NOT_WATCHED, Folder
from alfwatchd.tree.watch_claims import Claims


def folders(names="abc"):
    return [Folder(name, Kind.TOP, None, 1) for name in names]


def watches(claims):
    """Return watch descriptor -> names of the folders that claim it."""
    return {wd: "".join(folder.name for folder in claims.watched_by(wd)) for wd in claims}


# Steps are "a=7" (a claims 7), "a" (a gives its claim up), "!7" (the kernel removed 7); each with what is freed by it.
CASES = [
    ("one folder, one watch", [("a=7", None)], {7: "a"}),
    ("the same claim again", [("a=7", None), ("a=7", None)], {7: "a"}),
    ("a watch of two is free when both are gone", [("a=7", None), ("b=7", None), ("a", None), ("b", 7)], {}),
    ("whatever the order", [("a=7", None), ("b=7", None), ("b", None), ("a", 7)], {}),
    ("another watch frees the one before", [("a=7", None), ("a=8", 7)], {8: "a"}),
    ("unless somebody else claims it", [("a=7", None), ("b=7", None), ("a=8", None)], {7: "b", 8: "a"}),
    ("a moved folder is shown twice for a while", [("a=7", None), ("b=7", None), ("a", None)], {7: "b"}),
    ("what claims nothing frees nothing", [("a", None), ("a=7", None), ("a", 7), ("a", None)], {}),
    ("what the kernel removed is not freed again", [("a=7", None), ("b=7", None), ("!7", None), ("a", None)], {}),
    ("nor by a new claim", [("a=7", None), ("!7", None), ("a=8", None)], {8: "a"}),
    ("the kernel removes what nobody claims", [("a=7", None), ("!8", None)], {7: "a"}),
    ("descriptor 0 is one", [("a=0", None), ("b=0", None), ("a", None), ("b", 0)], {}),
]


@pytest.mark.parametrize(("story", "steps", "after"), CASES, ids=[case[0] for case in CASES])
def test_claims(story, steps, after):
    claims = Claims()
    by_name = {folder.name: folder for folder in folders()}
    for step, freed in steps:
        assert take(claims, by_name, step) == freed, step
        assert_consistent(claims, by_name.values())
    assert watches(claims) == after


def take(claims, by_name, step):
    if step.startswith("!"):
        claims.forget_watch(int(step[1:]))
        return None
    name, _, wd = step.partition("=")
    return claims.claim(by_name[name], int(wd)) if wd else claims.unclaim(by_name[name])


def assert_consistent(claims, all_folders):
    """The two sides of a claim, `Folder.wd` and `watched_by`, say the same."""
    for folder in all_folders:
        if folder.wd != NOT_WATCHED:
            assert claims.watched_by(folder.wd).count(folder) == 1
    claimed = [(folder, wd) for wd in claims for folder in claims.watched_by(wd)]
    assert len(claims) == len(set(claims)) == len({wd for _, wd in claimed})
    assert all(folder.wd == wd for folder, wd in claimed)


def test_a_removed_watch_tells_which_folders_lost_it():
    claims = Claims()
    a, b, c = folders()
    for folder, wd in ((a, 7), (b, 7), (c, 8)):
        claims.claim(folder, wd)
    assert set(claims.forget_watch(7)) == {a, b}
    assert ([each.wd for each in (a, b, c)], claims.forget_watch(7)) == ([NOT_WATCHED, NOT_WATCHED, 8], ())


def test_all_watches_go_with_their_watcher():
    claims = Claims()
    a, b, c = folders()
    for folder, wd in ((a, 7), (b, 7), (c, 8)):
        claims.claim(folder, wd)
    claims.forget_all()
    assert (len(claims), list(claims), claims.watched_by(7)) == (0, [], ())
    assert {each.wd for each in (a, b, c)} == {NOT_WATCHED}
    # A new watcher gives the same numbers to other folders: nothing of the old ones may be freed for them.
    assert [claims.claim(b, 8), claims.unclaim(a), claims.unclaim(b)] == [None, None, 8]


STEPS = ["".join(each) for each in itertools.product("abc", ("", "=1", "=2"))] + ["!1", "!2"]


@given(st.lists(st.sampled_from(STEPS), max_size=30))
def test_a_watch_is_freed_exactly_when_its_last_claim_goes(steps):
    claims = Claims()
    by_name = {folder.name: folder for folder in folders()}
    for step in steps:
        before = watches(claims)
        freed = take(claims, by_name, step)
        after = watches(claims)
        removed = {int(step[1:])} if step.startswith("!") else set()
        assert before.keys() - after.keys() - removed == ({freed} if freed is not None else set())
        assert_consistent(claims, by_name.values())
