"""What is counted for the metrics: durations by class, and labs up to a bound.

If one of these fails, a monitoring system draws wrong figures, or gets more series than it can keep.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.figures import BOUNDS, OTHER_LABS, Durations, limit_labs
from alfwatchd.tree.sessions import Counts


@given(st.lists(st.floats(0, 20_000)))
def test_each_duration_is_counted_in_the_class_that_it_belongs_to(seconds):
    """A class holds what took at most as long as its bound, as Prometheus' `le` says."""
    durations = Durations()
    for each in seconds:
        durations.add(each)
    assert durations.seconds == sum(seconds)
    assert sum(durations.counts) == len(seconds)
    for number, bound in enumerate(BOUNDS):
        assert sum(durations.counts[: number + 1]) == sum(each <= bound for each in seconds)


def test_a_copy_does_not_change_any_more():
    """Another thread writes it down while the first one goes on counting."""
    durations = Durations()
    durations.add(0.5)
    copy = durations.copy()
    durations.add(0.5)
    assert (sum(copy.counts), copy.seconds, sum(durations.counts)) == (1, 0.5, 2)


LABS = st.dictionaries(
    st.sampled_from(["", OTHER_LABS, *"abcdefgh"]), st.builds(Counts, *[st.integers(0, 9)] * 3), max_size=10
)


@given(LABS, st.integers(1, 6))
def test_the_largest_labs_have_figures_of_their_own_and_nothing_is_lost(labs, most):
    """A lab server with a thousand folders in its root must not fill a database; the sums stay right."""
    found = limit_labs(labs, most)
    assert len(found) <= most
    for column in ("n_sessions", "n_datasets", "n_bytes"):
        assert sum(getattr(each, column) for each in found.values()) == sum(
            getattr(each, column) for each in labs.values()
        )
    if len(labs) <= most:
        assert found == labs
        return
    shown = {name: each for name, each in found.items() if name != OTHER_LABS}
    assert all(labs[name] == each for name, each in shown.items())
    hidden = [each for name, each in labs.items() if name not in found and name != OTHER_LABS]
    assert max([each.n_bytes for each in hidden], default=0) <= min(
        [each.n_bytes for each in shown.values()], default=9
    )
