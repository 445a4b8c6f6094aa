"""``python -m alfwatchd``."""

from alfwatchd.cli.main import run

run()
