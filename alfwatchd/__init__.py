"""alfwatchd keeps the ONE cache tables of a folder of ALF datasets up to date.

All public names can be imported from here. Each is loaded when it is first used, so that a command that only talks to
a daemon does not wait for pandas and pyarrow.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing`, which has it, takes time in which Ctrl-C gives a traceback
if TYPE_CHECKING:
    from typing import Any

    __version__: str
    from alfwatchd.changes import Change, Fresh
    from alfwatchd.upstream import make_parquet_db, remove_missing_datasets
    from alfwatchd.web.client import Client

__all__ = ["Change", "Client", "Fresh", "__version__", "make_parquet_db", "remove_missing_datasets"]

_HOMES = {
    "Change": "changes",
    "Client": "web.client",
    "Fresh": "changes",
    "make_parquet_db": "upstream",
    "remove_missing_datasets": "upstream",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from alfwatchd.version import find_version

        return find_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"alfwatchd.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
