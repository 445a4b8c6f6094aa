"""A command that starts late learns of everything that happened to its session meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.changes import Change
from alfwatchd.follow.merging import merge
from kit.follow import make_change

STATES = st.dictionaries(st.sampled_from(["a.b.npy", "c.d.npy", "e.f.npy"]), st.integers(1, 3)) | st.none()
"""rel_path -> bytes; None where there is no session."""


def compare(before: dict[str, int] | None, after: dict[str, int] | None) -> Change | None:
    """Return the change that leads from one state to another."""
    if before == after:
        return None
    old, new = before or {}, after or {}
    added, removed = [[*sorted(each)] for each in (new.keys() - old.keys(), old.keys() - new.keys())]
    changed = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    kind = "added" if before is None else "removed" if after is None else "changed"
    return make_change(
        1, kind, n_added=len(added), n_changed=len(changed), n_removed=len(removed), added=added, changed=changed,
        removed=removed, bytes_before=sum(old.values()), bytes_after=sum(new.values()),
    )  # fmt: skip


@given(STATES, STATES, STATES)
def test_two_changes_say_what_both_say(first, second, third):
    """The merged change names each dataset that differs; one that went back to its old size counts as changed."""
    one, two = compare(first, second), compare(second, third)
    if one is None or two is None:
        return
    merged, whole = merge(one, two), compare(first, third)
    if first is None and third is None:
        assert merged is None
        return
    assert merged is not None
    assert (merged.bytes_before, merged.bytes_after) == (one.bytes_before, two.bytes_after)
    assert merged.n_changed == len(merged.changed)
    if whole is not None:
        assert merged.change == whole.change
        assert (sorted(merged.added), sorted(merged.removed)) == (whole.added, whole.removed)
        assert set(whole.changed) <= set(merged.changed)


def test_numbers_are_summed_where_not_all_datasets_are_named():
    one = make_change(1, n_added=500, added=["a.b.npy"])
    two = make_change(1, generation=2, n_changed=3, changed=["a.b.npy"], columns=["qc"])
    merged = merge(one, two)
    assert merged is not None
    assert (merged.n_added, merged.n_changed, merged.generation, merged.columns) == (500, 3, 2, ["qc"])


def test_a_session_that_comes_back_is_changed():
    merged = merge(make_change(1, "removed", n_removed=1), make_change(1, "added", n_added=1))
    assert merged is not None
    assert merged.change == "changed"
