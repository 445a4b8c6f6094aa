"""`alfwatchd serve`: gives the tables to ONE clients on other machines, over HTTP."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from alfwatchd.cli import addressing, output, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.service import configuration, logs

if TYPE_CHECKING:
    from alfwatchd.service.serve import Serving

_EXAMPLES = """\
example:
  alfwatchd serve --root /data/one

on another machine, in Python:
  from one.api import ONE
  one = ONE(base_url="http://HOST:8310", username="me", password="TOKEN",
            mode="local")
  one.load_cache()              fetch the tables, if the server has newer ones
  one.load_cache(tag="mine")    fetch a subset: a [[publish]] entry with
                                subset.tag = "mine" defines it

for Prometheus, /metrics has the metrics of the daemon, which the server asks on
its control socket.

The password is the credential serve_token. Set it in the environment as
ALFWATCHD_CREDENTIAL_SERVE_TOKEN, or with LoadCredential= in a systemd unit.
Without the credential, the server accepts any password: then listen at
127.0.0.1 only, or where everybody may know which data there are. The server has
no TLS: to send a token through a network, put a web server with TLS in front of
it: see docs/guide/serve.md.

exit codes: 0 done, 1 cannot listen at the address, 75 another process serves
from the state folder, 78 bad configuration
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    settings_flags.add_settings(parser, "where to listen", "serve.host", "serve.port")
    settings_flags.add_settings(
        parser,
        "settings",
        "root", "out_dir", "state_dir", "socket", "config", "log_level",
        about=settings_flags.PRECEDENCE,
    )  # fmt: skip
    settings_flags.add_output(parser, json_help="print as JSON where the server listens, as soon as it does")


def _run(arguments: argparse.Namespace) -> int:
    flags = settings_flags.read_flags(arguments)
    loaded = configuration.load(flags).settings
    from alfwatchd.service import serve

    logs.set_up(loaded.log_level)
    serve.run(
        loaded,
        lambda accept: addressing.find_daemon(flags, addressing.MONITOR_SECONDS).metrics(accept),
        _show if arguments.json else lambda _: None,
    )
    return 0


def _show(serving: Serving) -> None:
    """Print where the server listens, for a program that waits for it."""
    output.show_json(asdict(serving))
    sys.stdout.flush()


COMMAND = Command(
    "serve",
    summary="give the tables to ONE clients on other machines, over HTTP",
    description="Give the tables in --out-dir to ONE clients on other machines, over HTTP, until\n"
    "stopped. Another process writes the tables: `alfwatchd`, or `alfwatchd --once`.\n"
    "Soon after they change, this command serves the new ones. It writes archives to\n"
    "--state-dir, and nothing else.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
