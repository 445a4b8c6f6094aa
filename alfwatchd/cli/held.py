"""Rows that are held: so many sessions are gone that the daemon keeps their rows until a person decides."""

from __future__ import annotations

from alfwatchd.cli import output
from alfwatchd.web.client import Client


def tell_if_held(client: Client) -> bool:
    """Say on the standard error why the daemon holds rows, and what to do; return whether it holds any."""
    held = [problem.message for problem in client.status().problems if problem.kind == "held"]
    for message in held:
        output.complain(message)
    return bool(held)
