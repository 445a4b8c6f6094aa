"""What the tests of the server share."""

import pytest

from alfwatchd.web import (
    connections,
    http_server,
)
from kit.control import control_box


@pytest.fixture(scope="module")
def shared_box():
    with control_box() as box:
        yield box


@pytest.fixture
def box(shared_box):
    """One server for many tests: each begins with an engine that has taken nothing, and leaves the server alive."""
    shared_box.engine.taken.clear()
    yield shared_box
    assert shared_box.ask("GET", "/v1/status")[0] == 200


@pytest.fixture
def impatient(monkeypatch):
    """Give clients and shutdown much less time than usual."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "GRACE_SECONDS", 0)
