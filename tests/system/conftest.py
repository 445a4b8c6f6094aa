"""What tests that start the real program share."""

from __future__ import annotations

import pytest

from kit.program import make_small_tree, program


@pytest.fixture
def idle(tmp_path):
    """A program without daemon."""
    root = tmp_path / "data"
    root.mkdir()
    with program(make_small_tree(root)) as made:
        yield made
