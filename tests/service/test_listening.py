"""The control socket: clients find it again after its file was removed; nothing else from systemd is used."""

import logging
import os
import socket
import stat
from contextlib import closing

import pytest

from alfwatchd.errors import ConfigError
from alfwatchd.service import systemd
from alfwatchd.service.listening import Control
from alfwatchd.settings import Control as ControlSettings
from alfwatchd.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(**{name: tmp_path / name for name in ("root", "out_dir", "state_dir", "socket")})


@pytest.fixture
def passed(tmp_path, monkeypatch):
    """Let systemd have passed sockets of these kinds, the first one with a file."""

    def pass_sockets(*kinds):
        sockets = [socket.socket(socket.AF_UNIX, kind) for kind in kinds]
        sockets[0].bind(str(tmp_path / "passed"))
        if kinds[0] == socket.SOCK_STREAM:
            sockets[0].listen()
        fds = [each.detach() for each in sockets]
        monkeypatch.setattr(systemd, "listen_fds", lambda: fds)
        return fds

    return pass_sockets


def can_connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_socket_that_was_removed_is_made_again(settings, caplog):
    given = []
    with closing(Control(settings)) as control:
        assert (control.path, can_connect(settings.socket)) == (str(settings.socket), True)
        control.keep(given.append)
        assert given == [], "what is there stays"
        settings.socket.unlink()
        control.keep(given.append)
        assert len(given) == 1
        assert can_connect(settings.socket)
        assert "the control socket was removed and is made again" in caplog.text
        given[0].close()
    assert not settings.socket.exists()


@pytest.mark.parametrize(("read", "mode"), [("tables", 0o666), ("group", 0o600), ("owner", 0o600)])
def test_all_users_may_connect_where_the_daemon_decides(settings, read, mode):
    chosen = settings.model_copy(update={"control": ControlSettings(read=read)})
    with closing(Control(chosen)):
        assert stat.S_IMODE(settings.socket.stat().st_mode) == mode
        settings.socket.unlink()
    with closing(Control(chosen)):
        assert stat.S_IMODE(settings.socket.stat().st_mode) == mode


def test_the_socket_of_systemd_is_used_and_left_there(settings, passed, tmp_path, caplog):
    passed(socket.SOCK_STREAM)
    given = []
    with closing(Control(settings)) as control:
        assert control.path == str(tmp_path / "passed")
        assert can_connect(tmp_path / "passed")
        control.keep(given.append)
        (tmp_path / "passed").unlink()
        with caplog.at_level(logging.ERROR):
            control.keep(given.append)
            control.keep(given.append)
        assert (given, caplog.text.count("run systemctl restart on its unit")) == ([], 1)
    assert not settings.socket.exists()


@pytest.mark.parametrize("kinds", [(socket.SOCK_DGRAM,), (socket.SOCK_STREAM, socket.SOCK_STREAM)])
def test_something_else_from_systemd_is_refused(settings, passed, kinds):
    fds = passed(*kinds)
    with pytest.raises(ConfigError, match="exactly one ListenStream="):
        Control(settings)
    for fd in fds[1:]:
        os.close(fd)
