"""What is relied on in libraries whose internals carry no promise; watchdog's are in `test_watcher`.

Each of them has an upper bound in pyproject.toml. To raise one, run these tests with the new version.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import uvicorn
from packaging.requirements import Requirement
from pydantic_settings import BaseSettings, EnvSettingsSource
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 60.0
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
RUNTIME = [
    Requirement(line)
    for line in [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["s3"],
        *PROJECT["optional-dependencies"]["alyx"],
    ]
]


@pytest.mark.parametrize("needed", RUNTIME, ids=lambda each: each.name)
def test_each_runtime_dependency_has_a_lower_bound_and_the_installed_version_is_allowed(needed):
    assert any(each.operator == ">=" for each in needed.specifier)
    assert needed.specifier.contains(metadata.version(needed.name))


@pytest.mark.parametrize("name", ["watchdog", "uvicorn", "pydantic-settings"])
def test_what_is_used_beyond_its_promises_has_an_upper_bound(name):
    (needed,) = (each for each in RUNTIME if each.name == name)
    assert any(each.operator == "<" for each in needed.specifier)


# uvicorn: `connections.Protocol`, `serving.PublicProtocol` and `server._QuietServer`.

OVERRIDDEN = {
    H11Protocol: {
        "connection_made": ["transport"], "connection_lost": ["exc"], "eof_received": [], "pause_writing": [],
        "shutdown": [], "send_400_response": ["msg"],
    },
    uvicorn.Server: {
        "startup": ["sockets"], "main_loop": [], "on_tick": ["counter"], "shutdown": ["sockets"], "capture_signals": [],
        "run": ["sockets"],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in OVERRIDDEN.items() for name in names], ids=str
)
def test_contract_of_the_methods_of_uvicorn(kind, name):
    assert list(inspect.signature(getattr(kind, name)).parameters)[1:] == OVERRIDDEN[kind][name]


class Seen(H11Protocol):
    """Notes what uvicorn tells, and leaves all to it."""

    notes: dict[str, object]

    def connection_made(self, transport):
        super().connection_made(transport)
        self.app_state = {"mark": "ours"}
        self.notes["made"] = (
            self in self.connections, self.transport is transport, self.cycle, self.limit_concurrency,
            self.loop is asyncio.get_running_loop(), self.conn.trailing_data,
        )  # fmt: skip

    def send_400_response(self, msg):
        self.notes["refused"] = msg
        super().send_400_response(msg)

    def shutdown(self):
        self.notes["shutdown"] = self in self.connections
        super().shutdown()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.notes["lost"] = self in self.connections


@pytest.fixture
def seen():
    """A server of uvicorn's own whose connections take notes, as `server.Server` makes it."""

    class Noting(Seen):
        pass

    Noting.notes = {}

    async def application(scope, receive, send):
        Noting.notes["state"] = scope["state"]
        (cycle,) = (each.cycle for each in server.server_state.connections)
        body = await receive()
        Noting.notes["after"] = (cycle.more_body, body["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            application, http=Noting, loop="asyncio", ws="none", lifespan="off", log_config=None, log_level="error",
            h11_max_incomplete_event_size=1 << 14, limit_concurrency=7,
        )
    )  # fmt: skip
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    Noting.address = listening.getsockname()
    thread.start()

    def end():
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()

    yield Noting, end
    end()
    listening.close()


def ask(address, text):
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_contract_of_a_request_to_uvicorn(seen):
    protocol, end = seen
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\n"
    answer = ask(protocol.address, head + b"body")
    assert answer.startswith(b"HTTP/1.1 200") and b"answer" in answer
    end()
    notes = protocol.notes
    assert notes["made"] == (True, True, None, 7, True, (b"", False))
    assert notes["state"] == {"mark": "ours"}
    assert notes["after"] == (False, b"body")
    assert notes["lost"] is False


def test_contract_of_what_is_no_request_to_uvicorn(seen):
    protocol, end = seen
    assert ask(protocol.address, b"no HTTP at all\r\n\r\n").startswith(b"HTTP/1.1 400")
    end()
    assert isinstance(protocol.notes["refused"], str)


def test_contract_of_the_end_of_uvicorn(seen):
    """Each connection that is there is told; `Protocol` closes those that have not asked."""
    protocol, end = seen
    with socket.create_connection(protocol.address, timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        end()
    assert protocol.notes["shutdown"] is True


# pydantic-settings: `configuration._from_environment` says which variables there are.


def test_contract_of_the_environment_of_pydantic_settings():
    class Settings(BaseSettings):
        numbers: tuple[int, ...] = ()
        text: str = ""

    source = EnvSettingsSource(Settings, env_prefix="X_", env_nested_delimiter="__")
    source.env_vars = {"x_numbers": "[1, 2]", "x_text": "[1]", "other": "1"}
    assert source() == {"numbers": [1, 2], "text": "[1]"}
