"""Folders that servers, desktops and file systems set data aside in: recycle bins, snapshots and hidden folders.

What lies in them is a copy or has been deleted, so that no advice may lead there.
"""

from __future__ import annotations

_MARKS = (".", "@", "$", "~")
"""First letters of such names, as in `.snapshot`, `.Trash-1000`, `.zfs`, `@eaDir` and `$RECYCLE.BIN`."""
_NAMES = frozenset(
    {
        "#recycle", "#snapshot", "lost+found", "network trash folder", "recycle bin", "recycle.bin", "recycled",
        "recycler", "system volume information", "temporary items", "trash",
    }
)  # fmt: skip
"""Names of such folders in lower case. Any other name with `#` is rather a revision."""


def is_set_aside(name: str) -> bool:
    """Tell whether a folder of this name is hidden, a recycle bin or a folder of snapshots."""
    return name.startswith(_MARKS) or name.casefold() in _NAMES


def lies_aside(path: str) -> bool:
    """Tell whether a folder on a root-relative path is set aside."""
    return any(map(is_set_aside, path.split("/")))
