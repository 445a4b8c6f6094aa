"""``python -m alfwatchd``."""

from alfwatchd.cli import run

run()
