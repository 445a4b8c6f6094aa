"""Publications to S3 servers that people run, and what these say of keys, secrets and buckets that are wrong."""

from __future__ import annotations

import io
import random

import pytest

from alfwatchd.errors import TargetChanged, TargetError
from alfwatchd.publish.publication import publish
from alfwatchd.publish.s3 import PROBE, S3Target
from alfwatchd.settings import Publish
from kit.publish_race import race
from kit.published import LOCATION, look, write_tables
from kit.s3 import KEY, SECRET
from kit.s3_programs import BUCKET, PROGRAMS

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("s3_programs")]


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request, tmp_path_factory):
    with PROGRAMS[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield request.param, made


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_AWS_SECRET_ACCESS_KEY", SECRET)


def entry(made, prefix, **settings):
    return Publish(target=f"s3://{BUCKET}/{prefix}", endpoint=made.endpoint, location=LOCATION, **settings)


def see(made, prefix):
    return look(lambda key: made.read(f"{prefix}/{key}"), LOCATION)


def test_publications(server, tmp_path):
    _, made = server
    for number in range(1, 4):
        write_tables(tmp_path, number, [f"s{number}"])
        outcome = publish(tmp_path, entry(made, "one", keep_seconds=0))
        assert outcome.published
        assert len(outcome.removed) == (number > 1)
        assert see(made, "one") == (outcome.name, outcome.date, {f"s{number}"})
        assert not publish(tmp_path, entry(made, "one", keep_seconds=0)).published
    for name in outcome.removed:
        assert made.read(f"one/tables/{name}/cache.zip") is None


def test_conditions(server, caplog):
    """SeaweedFS makes conditional writes; rclone ignores conditions, which is said, and done without."""
    name, made = server
    targets = [S3Target(f"s3://{BUCKET}/conditions", endpoint=made.endpoint) for _ in range(2)]
    for each in targets:
        assert each.token("a.zip") is None
    targets[0].create("a.zip", io.BytesIO(b"1"))
    token = targets[1].token("a.zip")
    targets[0].replace("a.zip", io.BytesIO(b"2"), token)
    for old in (token, None):
        with pytest.raises(TargetChanged):
            targets[1].replace("a.zip", io.BytesIO(b"3"), old)
    with pytest.raises(TargetChanged):
        targets[1].replace("b.zip", io.BytesIO(b"3"), token)
    assert made.read("conditions/a.zip") == b"2"
    assert made.read("conditions/b.zip") is None
    assert made.read(f"conditions/{PROBE}") is None
    warnings = [each.getMessage() for each in caplog.records if "no conditional writes" in each.message]
    assert len(warnings) == (2 if name == "rclone" else 0)


@pytest.mark.parametrize(
    ("key", "secret", "bucket", "expected"),
    [
        ("AKIANOBODY", SECRET, BUCKET, "(InvalidAccessKeyId): it does not know this access key"),
        (KEY, SECRET[::-1], BUCKET, "(SignatureDoesNotMatch): the secret does not belong to the access key"),
        (KEY, SECRET, "nowhere", "(NoSuchBucket): there is no such bucket"),
    ],
)
def test_what_is_wrong_is_told(server, tmp_path, monkeypatch, key, secret, bucket, expected):
    _, made = server
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_AWS_SECRET_ACCESS_KEY", secret)
    write_tables(tmp_path, 1)
    with pytest.raises(TargetError) as caught:
        publish(tmp_path, Publish(target=f"s3://{bucket}/one", endpoint=made.endpoint))
    assert expected in str(caught.value)


def test_a_prefix_with_odd_characters(server, tmp_path):
    _, made = server
    prefix = "ä+b %20/x&y=z.~"
    write_tables(tmp_path, 1)
    outcome = publish(tmp_path, entry(made, prefix))
    assert see(made, prefix) == (outcome.name, outcome.date, {"s1", "s2"})
    assert not publish(tmp_path, entry(made, prefix)).published


def test_publishers_race_and_die(server, tmp_path, scale):
    """Two processes with different tables, of which one is killed now and then, and a reader all the time.

    Where the server makes no conditional writes, there is one publisher, as the page says.
    """
    name, made = server
    n_publishers = 1 if name == "rclone" else 2
    assert race(
        entry(made, "race", keep_seconds=3600), lambda: see(made, "race"), tmp_path, random.Random(3), scale(6, 100),
        n_publishers=n_publishers, most_seconds=0.2,
    )  # fmt: skip
