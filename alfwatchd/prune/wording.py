"""What each log line and refusal of a prune names: the root, and the reference that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alfwatchd.errors import NotAllowed, PruneRefused
from alfwatchd.prune.plan import PrunePlan


def name_prune(plan: PrunePlan) -> str:
    """Return the ``key=value`` pairs that end every log line of a prune."""
    return (
        f"root={plan.root!r} reference={plan.reference!r} reference_date={plan.reference_date or 'unknown'} "
        f"reference_generation={'none' if plan.reference_generation is None else plan.reference_generation}"
    )


@contextmanager
def refusals_named(root: str, reference: str) -> Iterator[None]:
    """Add the root, and the reference unless it is empty, to the message of a `PruneRefused` or `NotAllowed`."""
    try:
        yield
    except (PruneRefused, NotAllowed) as error:
        against = f", reference {reference}" if reference else ""
        raise type(error)(f"{error} (root {root}{against})") from error
