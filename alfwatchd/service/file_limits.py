"""Raises the number of files that the kernel lets this process have open."""

from __future__ import annotations

import resource

from alfwatchd.errors import ConfigError

LEAST = 192
"""Least number with which the daemon can work. At rest it has about 20 open. Clients may use half of the limit, and 32
more for a moment; flushes, scans and hashing need the rest."""

_ENOUGH = 16384


def raise_limit() -> None:
    """Raise the limit of open files as far as the kernel allows and is useful.

    Raises
    ------
    ConfigError
        The kernel allows fewer than `LEAST`.
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
