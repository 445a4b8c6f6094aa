"""How many files the kernel lets this process have open."""

from __future__ import annotations

import resource

from alfwatchd.errors import ConfigError

LEAST = 192
"""The daemon at rest has some 20; clients may have half of all, and 32 more for a moment; flushes, scans and hashing
need the rest."""

_ENOUGH = 16384


def raise_limit() -> None:
    """Let this process have as many open files as may be of use.

    Raises
    ------
    ConfigError
        It may have too few to work: clients and scans would take them from each other.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < LEAST:
        raise ConfigError(
            f"the limit of open files is {allowed}, and the daemon needs {LEAST}: raise it (LimitNOFILE= in the unit, "
            "`ulimit -n` in a shell)"
        )
