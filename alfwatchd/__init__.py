"""alfwatchd keeps the ONE cache tables of a folder of ALF datasets up to date.

All public names can be imported from here. Each is loaded when it is first used, so that a command that only talks to
a daemon does not wait for pandas and pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from alfwatchd.upstream import make_parquet_db, remove_missing_datasets
    from alfwatchd.web.client import Client

__all__ = ["Client", "__version__", "make_parquet_db", "remove_missing_datasets"]

_HOMES = {"Client": "web.client", "make_parquet_db": "upstream", "remove_missing_datasets": "upstream"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from alfwatchd.version import find_version

        return find_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"alfwatchd.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
