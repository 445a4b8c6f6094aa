"""The limit of open files: raised as far as allowed, and refused where clients and scans would starve each other."""

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from alfwatchd.errors import ConfigError
from alfwatchd.service import file_limits
try:
    file_limits.raise_limit()
except ConfigError as error:
    print(error)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
"""In a process of its own: a limit that is lowered can only be raised again by root."""


def limits(soft, hard):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(soft), str(hard)], capture_output=True, text=True)
    return done.stdout.splitlines() or done.stderr


@pytest.mark.parametrize(("soft", "hard", "expected"), [(64, 400, 400), (300, 300, 300), (192, 192, 192)])
def test_it_is_raised_as_far_as_allowed(soft, hard, expected):
    assert limits(soft, hard) == [str(expected)]


def test_more_than_is_of_use_is_not_asked_for():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard <= 20_000:
        pytest.skip("the limit here is too low")
    assert limits(1024, 20_000) == ["16384"]
    assert limits(18_000, 20_000) == ["18000"], "what is more already stays"


def test_too_few_are_refused_with_the_way_out():
    said, left = limits(100, 150)
    assert "the limit of open files is 150, and the daemon needs 192: raise it (LimitNOFILE=" in said
    assert left == "150"
