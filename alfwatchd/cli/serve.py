"""The arguments of `alfwatchd serve`, and what its help teaches."""

from __future__ import annotations

import argparse

_EPILOG = """\
on another machine, in Python:
  from one.api import ONE
  one = ONE(base_url="http://HOST:8310", username="me", password="TOKEN", mode="local")
  one.load_cache()                  fetch the tables, if they are newer than those that are here
  one.load_cache(tag="mine")        those of a subset; a [[publish]] entry with subset.tag = "mine" makes it

`alfwatchd` or `alfwatchd --once` keeps the tables, which are in --out-dir (default: --root). This command gives what is
there, and soon after a change what is there then. It keeps its archives in --state-dir, and writes nowhere else.

The password is the credential serve_token, from ALFWATCHD_CREDENTIAL_SERVE_TOKEN or systemd's LoadCredential=. Without
that, any password will do: listen at 127.0.0.1 only, or where everybody may know what data there are. There is no
TLS, so a token that goes through a network needs a web server in front: see docs/guide/serve.md.

exit codes: 0 done, 1 the address cannot be used, 75 another one serves from the state folder, 78 bad configuration
"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Give the command its flags and its help."""
    command.add_argument("--host", help="address to listen at (default 127.0.0.1; 0.0.0.0: all networks)")
    command.add_argument("--port", type=int, help="TCP port (default 8310; 0: any that is free)")
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = _EPILOG


def read_flags(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what was given, by the key of the setting."""
    return {"serve.host": arguments.host, "serve.port": arguments.port}
