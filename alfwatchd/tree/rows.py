"""The values that rows are made of: folders of datasets, sessions, problems. None of them ever changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from alfwatchd.alf import grammar
from alfwatchd.tree.packed import PackedFiles


class FolderRows(NamedTuple):
    """The datasets of one folder of a session.

    Parameters
    ----------
    folder : str
        Relative to the session; empty for the session folder itself.
    packed : PackedFiles
        At least one dataset.
    """

    folder: str
    packed: PackedFiles

    @property
    def files(self) -> dict[str, bytes]:
        """File name -> row value: a packed signature, followed by the md5 digest if it is known."""
        return self.packed.unpack()


UUID_PART = re.compile(r"\.([0-9a-f]{8}-[0-9a-f]{4}-[34][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})(?=\.\w+$)")
"""``one.alf.path.remove_uuid_string``: the last part of a file name before its extension."""


@lru_cache(maxsize=1 << 10)
def _named_by_uuid(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if len(name) > 40 and UUID_PART.search(name))


@dataclass(frozen=True)
class Session:
    """One session and all its datasets, as last seen on disk.

    Parameters
    ----------
    path : str
        Relative to the root, spelled as on disk.
    folders : tuple of FolderRows
    is_link : bool
        Whether the session folder, or one above it, is a symbolic link; prune leaves such a session alone.
    inode : int
        Inode of the session folder, as its parent lists it; 0 if no listing has shown it. It does not count when two
        sessions are compared.
    """

    path: str
    folders: tuple[FolderRows, ...] = ()
    is_link: bool = False
    inode: int = field(default=0, compare=False)

    @cached_property
    def key(self) -> grammar.SessionKey:
        """Lab, subject, date and number."""
        key = grammar.parse_session(self.path)
        assert key is not None, f"not a session path: {self.path!r}"
        return key

    @cached_property
    def n_datasets(self) -> int:
        """Number of datasets."""
        return sum([len(folder.packed.names) for folder in self.folders])

    @cached_property
    def n_bytes(self) -> int:
        """Sum of the file sizes, in bytes."""
        return sum([folder.packed.n_bytes for folder in self.folders])

    @cached_property
    def named_by_uuid(self) -> tuple[str, ...]:
        """rel_paths of the datasets with a UUID before the extension of their file name."""
        return tuple(
            f"{folder.folder}/{name}" if folder.folder else name
            for folder in self.folders
            for name in _named_by_uuid(folder.packed.names)
        )

    def datasets(self) -> Iterator[tuple[str, bytes]]:
        """Yield rel_path and row value of each dataset."""
        for folder in self.folders:
            prefix = f"{folder.folder}/" if folder.folder else ""
            for name, value in folder.files.items():
                yield prefix + name, value


PROBLEM_KINDS = (
    "adopt_conflict", "adopt_lab", "adopt_source", "adopt_spelling", "adopt_unmatched", "bad_collection",
    "foreign_table", "held", "lab_conflict", "lab_filled", "link_loop", "link_not_followed", "link_nowhere",
    "misplaced", "nested_session", "no_number", "not_watched", "nothing_found", "other_filesystem", "trash_damaged",
    "trash_written", "twin", "unpadded_number", "unreadable",
)  # fmt: skip
"""All kinds of problems; docs/reference/control_api.md says what to do about each."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should act on.

    Parameters
    ----------
    kind : str
        One of `PROBLEM_KINDS`: a constant word for each cause.
    path : str
        Relative to the root; empty for the root itself.
    message : str
        What is wrong, and what to do.
    """

    kind: str
    path: str
    message: str
