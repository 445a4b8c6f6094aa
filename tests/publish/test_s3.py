"""Publications to S3: what readers find while writes are torn, slow and refused."""

import io
import json
import logging
import os
import subprocess
import sys
from urllib.parse import quote

import pytest

from alfwatchd.alf.file_names import INFO, ZIP
from alfwatchd.errors import ConfigError, TargetChanged, TargetError
from alfwatchd.publish import archive, publication
from alfwatchd.publish.publication import publish
from alfwatchd.publish.s3 import MOST_BYTES, PROBE, S3Target
from alfwatchd.settings import Publish, Subset
from kit.published import look, unpack, write_tables
from kit.s3 import KEY, SECRET, TOKEN


def entry(s3, **settings):
    return Publish(target=s3.target, endpoint=s3.proxy.url, region="us-east-1", **settings)


def location(s3, tag=""):
    return f"{s3.proxy.url}/{s3.bucket}/one" + (f"/{tag}" if tag else "")


def test_conditions(connect_s3):
    target, other = connect_s3(), connect_s3()
    assert target.token("a.zip") is None
    target.create("a.zip", io.BytesIO(b"1"))
    with pytest.raises(TargetChanged):
        target.create("a.zip", io.BytesIO(b"2"))
    with pytest.raises(TargetChanged):
        target.replace("a.zip", io.BytesIO(b"2"), None)
    token = other.token("a.zip")
    target.replace("a.zip", io.BytesIO(b"3"), token)
    with pytest.raises(TargetChanged):
        other.replace("a.zip", io.BytesIO(b"4"), token)
    with target.open("a.zip") as file:
        assert file.read() == b"3"
    with pytest.raises(TargetChanged, match="removed just now"), target.open("b.json"):
        pass


def test_generations(s3, connect_s3, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # of one page
    target = connect_s3()
    assert target.generations() == set()
    for name in ("1-a", "2-b"):
        target.create(f"tables/{name}/cache.zip", io.BytesIO(b"1"))
    connect_s3("other").create("tables/3-c/cache.zip", io.BytesIO(b"1"))
    s3.write("tables/4-d/")  # an empty folder, which some servers keep
    s3.write("tables/readme")
    s3.write("tables/5-e/tables/cache.zip")
    assert target.generations() == {"1-a", "2-b"}
    target.remove("1-a")
    target.remove("nobody")
    assert target.generations() == {"2-b"}


def test_a_publication(s3, connect_s3, tmp_path):
    target = connect_s3()
    write_tables(tmp_path, 1)
    first = publish(tmp_path, entry(s3), target)
    assert look(s3.read, location(s3)) == (first.name, first.date, {"s1", "s2"})
    assert not publish(tmp_path, entry(s3), target).published
    write_tables(tmp_path, 2, ["s3"])
    second = publish(tmp_path, entry(s3, keep_seconds=0), target)
    assert second.date > first.date
    assert second.removed == (first.name,)
    assert look(s3.read, location(s3)) == (second.name, second.date, {"s3"})
    writes = [request for request in s3.proxy.requests if request.method == "PUT"]
    order = [request.path.rpartition("/one/")[2].partition("?")[0] for request in writes]
    assert order[-3:] == [f"tables/{second.name}/cache.zip", ZIP, INFO]
    assert all(b"if-match:" in each.head.lower() or b"if-none-match: *" in each.head.lower() for each in writes)
    caching = [
        line for each in writes[-3:] for line in each.head.splitlines() if line.lower().startswith(b"cache-control")
    ]
    assert [b"immutable" in line for line in caching] == [True, False, False]


def test_a_tag_is_a_prefix(s3, tmp_path):
    write_tables(tmp_path, 1)
    publish(tmp_path, entry(s3, subset=Subset(subjects=("s1",), tag="mine"), location="https://x.org/t"))
    assert look(lambda key: s3.read(f"mine/{key}"), "https://x.org/t/mine")[2] == {"s1"}
    assert s3.read(INFO) is None


def test_zip_of_another_program_whose_json_is_not_at_its_end(connect_s3):
    target = connect_s3()
    target.create(ZIP, io.BytesIO(os.urandom(3 << 20)))
    with target.open(ZIP) as file:
        assert archive.read_zipped_info(file) == {}


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        ("", "", "https://lab.s3.amazonaws.com/a/b"),
        ("", "eu-west-2", "https://lab.s3.eu-west-2.amazonaws.com/a/b"),
        ("", "cn-north-1", "https://lab.s3.cn-north-1.amazonaws.com.cn/a/b"),
        ("https://s3.lab.org", "", "https://s3.lab.org/lab/a/b"),
        ("https://s3.lab.org", "eu-west-2", "https://s3.lab.org/lab/a/b"),
    ],
)
def test_where_clients_find_it(s3, monkeypatch, endpoint, region, expected):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert S3Target("s3://lab/a", "b", endpoint, region).location == expected


def test_where_clients_find_it_if_the_environment_says_where_the_server_is(s3, monkeypatch):
    """No certificate of Amazon fits a name with dots."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.lab.org")
    assert S3Target("s3://lab/a").location == "https://s3.lab.org/lab/a"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert S3Target("s3://lab.org/a", region="eu-west-2").location == "https://s3.eu-west-2.amazonaws.com/lab.org/a"


def test_a_server_that_replaces_nothing_is_not_filled_by_many_tries(s3, connect_s3, tmp_path):
    """Some that are not Amazon's know `If-None-Match` only."""
    write_tables(tmp_path, 1)
    target = connect_s3()
    first = publish(tmp_path, entry(s3), target)
    s3.proxy.fault = lambda request: "echo" if b"\nif-match:" in request.head.lower() else ""
    for generation in (2, 3):
        write_tables(tmp_path, generation, [f"s{generation}"])
        with pytest.raises(TargetError, match="AccessDenied"):
            publish(tmp_path, entry(s3), target)
    assert target.generations() == {first.name}
    assert look(s3.read, location(s3)) == (first.name, first.date, {"s1", "s2"})


@pytest.mark.parametrize("fault", ["unconditional", "501 NotImplemented", "400 InvalidArgument", "405 Method"])
def test_a_server_without_conditional_writes(s3, connect_s3, tmp_path, caplog, fault):
    """It ignores conditions (rclone, old versions of others) or refuses them: tables are published all the same."""
    s3.proxy.fault = lambda request: fault if b"\r\nif-" in request.head.lower() else ""
    write_tables(tmp_path, 1)
    target, other = connect_s3(), connect_s3()
    publish(tmp_path, entry(s3), target)
    assert s3.read(PROBE) is None
    write_tables(tmp_path, 2, ["s3"])
    second = publish(tmp_path, entry(s3), target)
    assert look(s3.read, location(s3)) == (second.name, second.date, {"s3"})
    (warning,) = (each.getMessage() for each in caplog.records if "conditional writes" in each.message)
    assert warning.endswith(f"target=s3://{s3.bucket}/one")
    assert "let only one daemon publish there" in warning
    assert "if-" not in str([each.head.lower() for each in s3.proxy.requests if PROBE not in each.path])
    # What another publisher wrote is noticed, if there was time to.
    token = other.token(INFO)
    target.replace(INFO, io.BytesIO(b"{}"), token)
    with pytest.raises(TargetChanged):
        other.replace(INFO, io.BytesIO(b"[]"), token)
    with pytest.raises(TargetChanged):
        other.create(INFO, io.BytesIO(b"[]"))


def test_a_server_that_refuses_all_writes_is_not_taken_for_one_without_conditions(s3, connect_s3, tmp_path, caplog):
    write_tables(tmp_path, 1)
    s3.proxy.fault = lambda request: "501 NotImplemented" if request.method == "PUT" else ""
    with pytest.raises(TargetError, match="it does not know what this request asks for"):
        publish(tmp_path, entry(s3), connect_s3())
    assert not [each for each in caplog.records if "conditional" in each.message]


def test_a_server_that_compares_etags_without_quotation_marks(s3, connect_s3, tmp_path):
    """As Ceph does: a client that sends the ETag as it got it publishes once, and then never again."""
    s3.proxy.fault = lambda request: "412 PreconditionFailed" if b'\nif-match: "' in request.head.lower() else ""
    target, other = connect_s3(), connect_s3()
    for number in (1, 2, 3):
        write_tables(tmp_path, number, [f"s{number}"])
        outcome = publish(tmp_path, entry(s3), target)
        assert look(s3.read, location(s3)) == (outcome.name, outcome.date, {f"s{number}"})
    refused = [each for each in s3.proxy.requests if b'\nif-match: "' in each.head.lower() and PROBE not in each.path]
    assert len(refused) == 1  # it is remembered
    token = other.token(INFO)
    target.replace(INFO, io.BytesIO(b"{}"), token)
    with pytest.raises(TargetChanged):
        other.replace(INFO, io.BytesIO(b"[]"), token)
    assert s3.read(INFO) == b"{}"


def test_a_server_whose_conditions_never_hold(s3, connect_s3):
    """Nobody else publishes there, and a message that says so would send people to look for another daemon."""
    s3.proxy.fault = lambda request: "412 PreconditionFailed" if b"\nif-match:" in request.head.lower() else ""
    target = connect_s3()
    target.create(INFO, io.BytesIO(b"{}"))
    with pytest.raises(TargetError, match="its conditional writes do not work") as caught:
        target.replace(INFO, io.BytesIO(b"[]"), target.token(INFO))
    assert not isinstance(caught.value, TargetChanged)
    assert s3.read(INFO) == b"{}"


def test_a_file_that_somebody_removed_is_a_change(s3, connect_s3):
    target = connect_s3()
    target.create(INFO, io.BytesIO(b"{}"))
    token = target.token(INFO)
    s3.proxy.fault = lambda request: "404 NoSuchKey"
    with pytest.raises(TargetChanged):
        target.replace(INFO, io.BytesIO(b"{}"), token)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("403 InvalidAccessKeyId", "it does not know this access key; check aws_access_key_id"),
        ("403 SignatureDoesNotMatch", "the secret does not belong to the access key"),
        ("403 RequestTimeTooSkewed", "set the clocks"),
        ("400 AuthorizationHeaderMalformed", "check region and endpoint"),
        ("301 PermanentRedirect x-amz-bucket-region: eu-west-2", "the bucket is in the region eu-west-2"),
        ("308 Moved location: https://s3.lab.org/x", "it redirects to https://s3.lab.org; set endpoint"),
        ("404 NoSuchBucket", "there is no such bucket; make it"),
        ("405 MethodNotAllowed", "is it an S3 server, or a proxy?"),
    ],
)
def test_the_reason_is_told(s3, connect_s3, tmp_path, fault, expected):
    write_tables(tmp_path, 1)
    s3.proxy.fault = lambda request: fault
    with pytest.raises(TargetError) as caught:
        publish(tmp_path, entry(s3), connect_s3())
    assert str(caught.value).startswith(f"s3://{s3.bucket}/one")
    assert expected in str(caught.value)


def test_a_web_server_that_is_no_s3_server(s3, connect_s3, tmp_path):
    """It knows no path, and says so in HTML: nothing is there, not even a bucket."""
    write_tables(tmp_path, 1)
    s3.proxy.fault = lambda request: "404 Not<html>Found"
    with pytest.raises(TargetError, match="there is no such bucket; make it, or check target and endpoint"):
        publish(tmp_path, entry(s3), connect_s3())


def test_a_file_that_s3_does_not_take_in_one_request(connect_s3, tmp_path):
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(MOST_BYTES + 1)
        with pytest.raises(TargetError, match="S3 takes 5 GB in one request; publish smaller sub-tables"):
            connect_s3().create(ZIP, file)


def test_a_target_that_makes_no_sense(s3):
    with pytest.raises(TargetError, match=r"s3://a: the S3 server cannot be used \(InvalidRegionError\)"):
        S3Target("s3://a", endpoint=s3.proxy.url, region="eu west")


def test_each_write_has_the_checksum_without_which_a_bucket_with_object_lock_takes_none(s3, connect_s3, tmp_path):
    write_tables(tmp_path, 1)
    s3.proxy.fault = lambda request: (
        "400 InvalidRequest" if request.method == "PUT" and b"\ncontent-md5:" not in request.head.lower() else ""
    )
    first = publish(tmp_path, entry(s3), connect_s3())
    assert look(s3.read, location(s3)) == (first.name, first.date, {"s1", "s2"})


def test_a_server_that_says_yes_to_everything(s3, connect_s3, tmp_path):
    write_tables(tmp_path, 1)
    s3.proxy.fault = lambda request: "bare"
    with pytest.raises(TargetError, match=r"the S3 server sent no ETag; is it an S3 server, or a proxy\?"):
        publish(tmp_path, entry(s3), connect_s3())


@pytest.mark.parametrize("prefix", ["ä+b %20/x&y=z", "a.b/~c"])
def test_prefixes_with_odd_characters(s3, tmp_path, prefix):
    write_tables(tmp_path, 1)
    settings = Publish(target=f"s3://{s3.bucket}/{prefix}", endpoint=s3.proxy.url, region="us-east-1", keep_seconds=0)
    first = publish(tmp_path, settings)
    assert not publish(tmp_path, settings).published
    told = json.loads(s3.read(INFO, prefix))["location"]
    assert told == f"{s3.proxy.url}/{s3.bucket}/{quote(prefix)}/tables/{first.name}/cache.zip"
    assert unpack(s3.read(f"tables/{first.name}/cache.zip", prefix))[1] == {"s1", "s2"}
    write_tables(tmp_path, 2, ["s3"])
    assert publish(tmp_path, settings).removed == (first.name,)


@pytest.mark.parametrize("fault", ["echo", "refuse", "hang", "busy"])
def test_no_secret_is_told(s3, connect_s3, tmp_path, caplog, capfd, fault):
    caplog.set_level(logging.DEBUG)
    write_tables(tmp_path, 1)
    s3.proxy.fault = lambda request: fault if request.method == "PUT" else ""
    with pytest.raises(TargetError) as caught:
        publish(tmp_path, entry(s3), connect_s3(read_seconds=0.2))
    told, error = [caplog.text, *capfd.readouterr()], caught.value
    while error is not None:
        told += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    sent = b"".join(request.head for request in s3.proxy.requests)
    assert TOKEN.encode() in sent  # the server could have told
    assert KEY.encode() in sent
    for secret in (KEY, SECRET, TOKEN):
        assert not [text for text in told if secret in text]
    if fault == "echo":
        assert "(AccessDenied)" in str(caught.value)


def test_a_dead_server_ends_an_attempt(s3, connect_s3, tmp_path):
    write_tables(tmp_path, 1)
    s3.proxy.fault = lambda request: "hang"
    with pytest.raises(TargetError, match=r"s3://box-\w+/one/cache.zip: .* it does not answer in time"):
        publish(tmp_path, entry(s3), connect_s3(read_seconds=3600, request_seconds=1.0))


def test_without_botocore(monkeypatch, tmp_path):
    monkeypatch.setattr("alfwatchd.publish.s3_server.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'alfwatchd\[s3\]'"):
        publication.check_targets([Publish(target="s3://lab")])
    publication.check_targets([Publish(target=str(tmp_path))])


def test_botocore_is_not_imported_for_a_folder(tmp_path):
    found = "any(n in sys.modules for n in ('botocore', 'urllib3'))"
    code = f"import sys, alfwatchd.publish.publisher; sys.exit({found})"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
