"""`alfwatchd serve`: what it hands to the server. `tests/system/test_serve.py` asks one."""

from __future__ import annotations

import pytest

from alfwatchd.service import serve


@pytest.mark.parametrize(
    ("words", "host", "port"),
    [([], "127.0.0.1", 8310), (["--host=0.0.0.0", "--port=0"], "0.0.0.0", 0), (["--port", "80"], "127.0.0.1", 80)],  # noqa: S104 - nothing is bound
)
def test_it_listens_where_it_is_told(words, host, port, run, tmp_path, monkeypatch):
    """To listen on all networks must be the user's wish, and never a default."""
    given = []
    monkeypatch.setattr(serve, "run", given.append)
    assert run("serve", f"--root={tmp_path}", *words).code == 0
    assert [(each.serve.host, each.serve.port) for each in given] == [(host, port)]


def test_help_shows_how_a_client_asks(run):
    """A user can use the server only with the line for the other machine."""
    assert 'one = ONE(base_url="http://HOST:8310"' in run("serve", "--help").out
