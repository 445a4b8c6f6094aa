"""Rows as the tree makes them, for tests that need no tree."""

from alfwatchd.core.rows import FolderRows, PackedFiles


def folder_rows(folder, files):
    """Return the rows of one folder, or None where it holds no dataset."""
    if not files:
        return None
    return FolderRows(folder, PackedFiles.pack(files))
