"""The name that a person may have meant: a wrong one sends them the wrong way."""

import pytest

from alfwatchd.nearest import nearest

CASES = [
    ("spike.times", ["spikes.times", "spikes.amps", "trials.table"], "spikes.times"),
    ("SL017", ["SL-017", "NL_017"], "SL-017"),
    ("sl-017", ["SL-017"], "SL-017"),
    ("SUB_12", ["SUB_0012", "SUB_9912", "SUB_1234"], "SUB_1234"),
    ("xyz", ["spikes.times"], None),
    ("", ["a"], None),
    ("a", [], None),
]


@pytest.mark.parametrize(("word", "names", "meant"), CASES)
def test_the_nearest_name(word, names, meant):
    assert nearest(word, names) == meant
    assert nearest(word, reversed(names)) == meant
