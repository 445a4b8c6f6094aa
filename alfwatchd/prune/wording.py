"""What each line and refusal of a prune names: which root, measured against which reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alfwatchd.errors import NotAllowed, PruneRefused
from alfwatchd.prune.plan import PrunePlan


def name_prune(plan: PrunePlan) -> str:
    """Return the keys and values that end every log line of a prune."""
    return (
        f"root={plan.root!r} reference={plan.reference!r} reference_date={plan.reference_date or 'unknown'} "
        f"reference_generation={'none' if plan.reference_generation is None else plan.reference_generation}"
    )


@contextmanager
def refusals_named(root: str, reference: str) -> Iterator[None]:
    """Let refusals say what was to be pruned. An empty `reference` is not known yet."""
    try:
        yield
    except (PruneRefused, NotAllowed) as error:
        against = f", reference {reference}" if reference else ""
        raise type(error)(f"{error} (root {root}{against})") from error
