"""What the tests of prune share."""

import os

import pytest


@pytest.fixture
def no_descriptor_is_left_open():
    """Fail a test after which the process has more files open than before: a daemon would run out of them."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before
