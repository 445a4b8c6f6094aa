"""What the tests of publish share."""

import pytest

from kit.published import write_tables
from kit.trees import fast_folder


@pytest.fixture
def places():
    """Yield the folder of the tables and an empty target."""
    with fast_folder() as folder:
        (folder / "target").mkdir()
        write_tables(folder / "out", 1)
        yield folder / "out", folder / "target"
