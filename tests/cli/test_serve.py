"""`alfwatchd serve`: what it hands to the server. `tests/system/test_serve.py` asks one."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from alfwatchd.errors import NoDaemon, WrongRoot
from alfwatchd.figures import Figures, FiguresRequest
from alfwatchd.service import serve
from kit.control import STATUS, control_box


@pytest.mark.parametrize(
    ("words", "host", "port"),
    [([], "127.0.0.1", 8310), (["--host=0.0.0.0", "--port=0"], "0.0.0.0", 0), (["--port", "80"], "127.0.0.1", 80)],  # noqa: S104 - nothing is bound
)
def test_it_listens_where_it_is_told(words, host, port, run, tmp_path, monkeypatch):
    """To listen on all networks must be the user's wish, and never a default."""
    given = []
    monkeypatch.setattr(serve, "run", lambda settings, *_: given.append(settings))
    assert run("serve", f"--root={tmp_path}", *words).code == 0
    assert [(each.serve.host, each.serve.port) for each in given] == [(host, port)]


def test_it_asks_the_daemon_of_its_root_for_metrics(run, tmp_path, monkeypatch):
    """A monitoring system must not take the daemon of another root for this one."""
    asked = []
    monkeypatch.setattr(serve, "run", lambda _, ask, *__: asked.append(ask))
    with control_box({FiguresRequest: Figures(STATUS)}) as box:
        (box.settings.root).mkdir()
        assert run("serve", f"--root={box.settings.root}", f"--socket={box.path}").code == 0
        assert b"alfwatchd_up 1.0\n" in asked[0]("text/plain")
        assert asked[0]("application/openmetrics-text").endswith(b"# EOF\n")
        assert run("serve", f"--root={tmp_path}", f"--socket={box.path}").code == 0
        with pytest.raises(WrongRoot):
            asked[1]("text/plain")
    with pytest.raises(NoDaemon):
        asked[0]("text/plain")


def test_a_program_is_told_where_the_server_listens(run, tmp_path, monkeypatch):
    """With --port 0, a script has no other way to find it; people read the log."""
    made = serve.Serving("http://127.0.0.1:81", ["mine"], needs_token=True)
    monkeypatch.setattr(serve, "run", lambda _, __, tell: tell(made))
    assert json.loads(run("serve", f"--root={tmp_path}", "--json").out) == asdict(made)
    assert run("serve", f"--root={tmp_path}").out == ""


def test_help_shows_how_a_client_asks(run):
    """A user can use the server only with the line for the other machine."""
    assert 'one = ONE(base_url="http://HOST:8310"' in run("serve", "--help").out
