"""A line of the log or a refusal names its prune: else a person with several roots could not tell them apart."""

import pytest

from alfwatchd.errors import NotAllowed, PruneRefused, RootOffline
from alfwatchd.prune.plan import OnDisk, make_plan
from alfwatchd.prune.wording import name_prune, refusals_named


@pytest.mark.parametrize(
    ("date", "generation", "said"),
    [
        ("2020-01-01T00:00:00+00:00", 7, "reference_date=2020-01-01T00:00:00+00:00 reference_generation=7"),
        ("", None, "reference_date=unknown reference_generation=none"),
    ],
)
def test_a_line_names_root_and_reference(date, generation, said):
    plan = make_plan("/data/my root", ("/tables", date, generation), OnDisk(0, 0), (), ())
    assert name_prune(plan) == f"root='/data/my root' reference='/tables' {said}"


@pytest.mark.parametrize("kind", [PruneRefused, NotAllowed])
def test_a_refusal_names_root_and_reference(kind):
    with pytest.raises(kind, match=r"^why \(root /root, reference /tables\)$"), refusals_named("/root", "/tables"):
        raise kind("why")
    with pytest.raises(kind, match=r"^why \(root /root\)$"), refusals_named("/root", ""):
        raise kind("why")


def test_another_error_stays_as_it_is():
    with pytest.raises(RootOffline, match=r"^why$"), refusals_named("/root", "/tables"):
        raise RootOffline("why")
