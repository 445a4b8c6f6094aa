"""Names of the files that ONE reads, and of those that a publication adds."""

from __future__ import annotations

SESSIONS = "sessions.pqt"
DATASETS = "datasets.pqt"
INFO = "cache_info.json"
ZIP = "cache.zip"
TABLES = "tables"
"""Folder at a target that holds one folder for each published generation."""
