"""What the tests of the engine share."""

import pytest

from kit.engine import EngineBox
from kit.engine_tree import write


@pytest.fixture
def make_box(tmp_path):
    boxes = []

    def make(*paths, **settings):
        """Make an engine on a tree with these datasets, and let it live until it is idle."""
        write(tmp_path / "root", *paths)
        boxes.append(EngineBox(tmp_path / "root", **settings))
        boxes[-1].sync()
        boxes[-1].live(20.0)  # the flush interval and the rest after a scan are over
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()
