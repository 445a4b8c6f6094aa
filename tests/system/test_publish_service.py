"""The installed daemon publishes to an S3 server, with the drop-in that gives it the network and its secrets."""

import io
import json
import zipfile

import pytest

from kit.service import PLAIN, REPOSITORY, UNITS, fresh_lab, installed_box
from kit.systemd import PROGRAM

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120), pytest.mark.xdist_group("systemd")]

SECRETS = {"aws_access_key_id": "AKIA7EXAMPLE2KEY1234", "aws_secret_access_key": "s3cr3t/And+Plus0123456789"}
FOLDER = "/etc/alfwatchd/credentials"
DROP_IN = f"{UNITS}/alfwatchd.service.d/network.conf"
SERVER = [f"{PROGRAM}/bin/python", "-c", "from moto.server import main\nmain(['-H', '127.0.0.1', '-p', '5000'])"]
FETCH = """
import sys, urllib.request
method, address = sys.argv[1:]
request = urllib.request.Request(address, b"" if method == "PUT" else None, method=method)
request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=anyone/20260101/us-east-1/s3/aws4_request")
sys.stdout.write(urllib.request.urlopen(request, timeout=120).read().hex())
"""
ADDRESS = "http://127.0.0.1:5000"
SETTINGS = f"""
{PLAIN}
[[publish]]
target = "s3://lab/one"
endpoint = "{ADDRESS}"
region = "us-east-1"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    pytest.importorskip("botocore", reason="botocore is not installed")
    with installed_box(tmp_path_factory.mktemp("box")) as made:
        made.box.run("ip", "link", "set", "lo", "up", check=False)
        made.box.run("systemd-run", "--unit=s3", *SERVER)
        made.box.wait(lambda: ask(made.box, "PUT", "lab", check=False) is not None)
        yield made


@pytest.fixture
def lab(installed):
    with fresh_lab(installed.box) as made:
        yield made
        made.box.run("rm", "-f", DROP_IN)
        made.box.run("systemctl", "daemon-reload")


def ask(box, method, path, *, check=True):
    done = box.run(f"{PROGRAM}/bin/python", "-c", FETCH, method, f"{ADDRESS}/{path}", check=check)
    return bytes.fromhex(done.stdout) if done.returncode == 0 else None


def target(lab):
    (found,) = lab.status()["targets"]
    return found


def test_with_the_drop_in_and_without(lab):
    lab.start(SETTINGS)
    lab.box.wait(lambda: target(lab)["last_error"])
    assert "s3://lab/one/cache.zip: the S3 server cannot be used" in target(lab)["last_error"]
    lab.box.run("systemctl", "stop", "alfwatchd")

    text = (REPOSITORY / "systemd/network.conf").read_text()
    for name, secret in SECRETS.items():
        lab.box.write(f"{FOLDER}/{name}", f"{secret}\n", 0o600)
        assert f"#LoadCredential={name}:{FOLDER}/{name}\n" in text
        text = text.replace(f"#LoadCredential={name}:", f"LoadCredential={name}:")
    lab.box.write(DROP_IN, text)
    lab.box.run("systemctl", "daemon-reload")
    lab.start(SETTINGS)
    lab.box.wait(lambda: target(lab)["generation"])
    info = json.loads(ask(lab.box, "GET", "lab/one/cache_info.json"))
    assert info["alfwatchd"]["name"] == target(lab)["generation"]
    assert info["location"] == f"{ADDRESS}/lab/one/tables/{info['alfwatchd']['name']}/cache.zip"
    with zipfile.ZipFile(io.BytesIO(ask(lab.box, "GET", "lab/one/cache.zip"))) as zipped:
        assert json.loads(zipped.read("cache_info.json"))["tables"]["datasets"]["nrecs"] == len(lab.datasets())

    environment = lab.box.run("cat", f"/proc/{lab.show('MainPID')}/environ").stdout
    told = [
        environment,
        lab.log(),
        json.dumps(lab.status()),
        lab.alfwatchd("config", "--config=/etc/alfwatchd/config.toml").stdout,
    ]
    assert not [secret for secret in SECRETS.values() if any(secret in each for each in told)]
