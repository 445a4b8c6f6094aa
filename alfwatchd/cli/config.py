"""`alfwatchd config`: shows each setting, its value, and where the value comes from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from alfwatchd import addresses
from alfwatchd.cli import output, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.service import configuration
from alfwatchd.settings import EXPLANATIONS, Settings

_EXAMPLES = """\
examples:
  alfwatchd config --root /data/one                       what a daemon would use
  alfwatchd config --config /etc/alfwatchd/config.toml    check this file
  alfwatchd config --root /data/one --json                the same, for a program

exit codes: 0 done, 78 a setting is wrong: the message names it
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    settings_flags.add_settings(
        parser,
        "settings",
        "root", "config", "out_dir", "state_dir", "socket", "lab", "exclude", "hash_files", "scan_workers", "watch",
        "log_level",
        about=settings_flags.PRECEDENCE,
    )  # fmt: skip
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    loaded = configuration.load(settings_flags.read_flags(arguments))
    values = {key: _read_value(loaded.settings, key) for key in EXPLANATIONS}
    if arguments.json:
        output.show_json({key: {"value": value, "source": loaded.sources[key]} for key, value in values.items()})
        return 0
    for key, value in values.items():
        shown = json.dumps(value, default=str) if not isinstance(value, Path) else str(value)
        output.show(f"{key:<30} {shown:<40} {loaded.sources[key]}")
    return 0


def _read_value(settings: Settings, key: str) -> Any:
    """Return the value of a setting, such as ``prune.enabled``, as it may be shown."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    if key == "adopt.source":
        return addresses.shown(value)  # an address may hold a signature
    return [entry.model_dump() for entry in value] if key == "publish" else value


COMMAND = Command(
    "config",
    summary="show each setting, its value, and where the value comes from",
    description="Show each setting, its value, and where the value comes from. Start and change\n"
    "nothing. config.example.toml explains every setting.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
