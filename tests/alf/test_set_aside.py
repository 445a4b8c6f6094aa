"""No advice leads into recycle bins, snapshots and hidden folders: what is in them was deleted, or is a copy."""

import pytest

from alfwatchd.alf.set_aside import is_set_aside, lies_aside


@pytest.mark.parametrize(
    "name",
    [
        "#recycle", "@Recycle", "@eaDir", "$RECYCLE.BIN", ".Trash-1000", ".Trashes", ".snapshot", ".zfs", ".recycle",
        "#snapshot", "@Recently-Snapshot", "~snapshot", "RECYCLER", "System Volume Information", "lost+found",
    ],
)  # fmt: skip
def test_what_servers_and_desktops_set_aside_is_known_by_its_name(name):
    assert is_set_aside(name)
    assert lies_aside(f"data/{name}/lab/Subjects")


@pytest.mark.parametrize(
    "name", ["lab", "Subjects", "my data", "SL-017", "recycled_mice", "snapshots", "_old", "001", "#1#"]
)
def test_folders_of_people_are_not_set_aside(name):
    assert not is_set_aside(name)
    assert not lies_aside(f"data/{name}")
