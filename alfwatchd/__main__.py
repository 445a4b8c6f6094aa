"""``python -m alfwatchd``."""

from alfwatchd.launch import run

run()
