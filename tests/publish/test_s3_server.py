"""What arrives at an S3 server: whose key signed it, for which region, at which address, with which headers."""

import datetime
import http.server
import ipaddress
import re
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from alfwatchd.publish.s3_server import S3Failure, S3Server
from kit.s3 import KEY, SECRET, TOKEN

NAMES = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
PROFILES = f"""
[default]
aws_access_key_id = DEFAULTKEY
aws_secret_access_key = {SECRET}
[lab]
aws_access_key_id = LABKEY
aws_secret_access_key = {SECRET}
"""


@pytest.fixture
def bare(s3, monkeypatch, tmp_path):
    """Yield the proxy; there are no credentials and no settings of AWS. The server answers 418 to all requests."""
    for name in NAMES:
        monkeypatch.delenv(f"ALFWATCHD_CREDENTIAL_{name.upper()}", raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    s3.proxy.fault = lambda request: "418 Teapot"
    return s3.proxy


@pytest.fixture
def keys(monkeypatch):
    """Give credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def connect(endpoint, region="", bucket="lab", **seconds):
    seconds = {"connect_seconds": 10.0, "read_seconds": 10.0, "request_seconds": 60.0} | seconds
    return S3Server(bucket, endpoint, region, **seconds)


def signed_by(proxy, endpoint=None, region=""):
    """Return key and region of the signature of a write."""
    server = connect(proxy.url if endpoint is None else endpoint, region)
    with pytest.raises(S3Failure):
        server.ask("put_object", Key="one/a.zip", Body=b"1", IfNoneMatch="*")
    server.close()
    found = re.search(rb"Credential=(\w+)/\d+/([\w-]+)/s3/", proxy.requests[-1].head)
    return found[1].decode(), found[2].decode()


def test_credentials_of_systemd_come_first(bare, keys, monkeypatch, tmp_path):
    for name, value in zip(NAMES, (KEY, SECRET, TOKEN), strict=True):
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert signed_by(bare)[0] == KEY
    assert TOKEN.encode() in bare.requests[-1].head


def test_credentials_of_the_environment(bare, keys):
    assert signed_by(bare) == ("ENVKEY", "us-east-1")


@pytest.mark.parametrize(("profile", "key"), [("", "DEFAULTKEY"), ("lab", "LABKEY")])
def test_credentials_of_a_profile(bare, monkeypatch, tmp_path, profile, key):
    (tmp_path / "credentials").write_text(PROFILES)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    assert signed_by(bare)[0] == key


def test_credentials_that_a_program_gives(bare, tmp_path):
    """`credential_process` is how password managers and single sign-on give credentials that do not last."""
    said = f'{{"Version": 1, "AccessKeyId": "ASKEDKEY", "SecretAccessKey": "{SECRET}"}}'
    (tmp_path / "said").write_text(said)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'said'}\n")
    assert signed_by(bare)[0] == "ASKEDKEY"


def test_region_and_endpoint_of_the_settings_come_first(bare, keys, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert signed_by(bare)[1] == "eu-west-2"
    assert signed_by(bare, region="garage")[1] == "garage"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert signed_by(bare)[0] == "ENVKEY"
    monkeypatch.setenv("AWS_ENDPOINT_URL", bare.url)
    assert signed_by(bare, endpoint="")[0] == "ENVKEY"
    assert connect("").address == bare.url
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{bare.url}/")
    assert connect("").address == bare.url


def test_the_bucket_is_in_the_path_or_where_a_profile_says_in_the_host_name(bare, keys, monkeypatch, tmp_path):
    signed_by(bare, f"{bare.url}/storage")
    assert bare.requests[-1].path == "/storage/lab/one/a.zip"
    monkeypatch.setenv("HTTP_PROXY", bare.url)
    signed_by(bare, "http://s3.lab.example")
    assert bare.requests[-1].path == "http://s3.lab.example/lab/one/a.zip"
    (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    signed_by(bare, "http://s3.lab.example")
    assert bare.requests[-1].path == "http://lab.s3.lab.example/one/a.zip"


def test_a_write_has_no_checksum_that_other_servers_refuse(bare, keys, monkeypatch):
    """Only the sha256 of its signature, which all servers know, and by which they recognise damage."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    signed_by(bare)
    request = bare.requests[-1]
    names = {line.partition(b":")[0].lower() for line in request.head.splitlines()[1:]}
    assert not [name for name in names if b"checksum" in name or name in (b"x-amz-trailer", b"content-encoding")]
    assert b"x-amz-content-sha256: 6b86b273ff34fce19d6b804eff5a3f57" in request.head.lower()
    assert request.body == b"1"


def test_an_answer_to_head_does_not_say_why_so_a_second_request_asks(bare, keys):
    bare.fault = lambda request: "403 InvalidAccessKeyId"
    with pytest.raises(S3Failure, match="InvalidAccessKeyId"):
        connect(bare.url).head("a")
    assert [each.method for each in bare.requests] == ["HEAD", "GET"]
    bare.fault = lambda request: "404 NoSuchKey"
    with pytest.raises(S3Failure, match=r"\(404\)"):
        connect(bare.url).head("a")
    assert [each.method for each in bare.requests[2:]] == ["HEAD"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_not_followed(bare, keys, status):
    """A client that follows it repeats a write as a read, and takes the answer for success."""
    bare.fault = lambda request: f"{status} Moved location: {bare.url}/elsewhere"
    with pytest.raises(S3Failure, match="redirects to http://127"):
        connect(bare.url).ask("put_object", Key="a", Body=b"1")
    assert [each.method for each in bare.requests] == ["PUT"]


def test_a_redirect_to_a_region_is_followed_once(bare, keys):
    bare.fault = lambda request: "301 PermanentRedirect x-amz-bucket-region: eu-west-2"
    with pytest.raises(S3Failure, match="the bucket is in the region eu-west-2"):
        connect(bare.url, "us-east-1").ask("put_object", Key="a", Body=b"1")
    assert [b"/eu-west-2/s3/" in each.head for each in bare.requests] == [False, True]


def test_an_answer_that_comes_byte_by_byte_ends(bare, keys):
    bare.fault = lambda request: "drip"
    with pytest.raises(S3Failure, match=r"\(TimeoutError\): it does not answer in time"):
        connect(bare.url, request_seconds=1.0).ask("put_object", Key="a", Body=b"1")


def test_a_server_whose_certificate_an_authority_of_the_lab_has_signed(bare, keys, monkeypatch, tmp_path):
    """It is not trusted, until `AWS_CA_BUNDLE` names the certificate."""
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        endpoint = f"https://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with pytest.raises(S3Failure, match=r"SSLError.*AWS_CA_BUNDLE"):
            connect(endpoint).ask("put_object", Key="a", Body=b"1")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        with pytest.raises(S3Failure, match="501"):  # this server knows no PUT
            connect(endpoint).ask("put_object", Key="a", Body=b"1")
        server.shutdown()
        thread.join()


def make_certificate(folder):
    """Write a key and a certificate of 127.0.0.1, which is signed by itself; return the path of the file of both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "lab.pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    return path


@pytest.mark.parametrize(
    ("text", "profile", "expected"),
    [
        ("", "", "NoCredentialsError"),
        ("[default]\naws_access_key_id = A\n", "", "PartialCredentialsError"),
        ("", "nobody", "ProfileNotFound"),
        ("no section", "", "ConfigParseError"),
        (
            "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = x\n",
            "",
            r"InvalidConfigError.*check AWS_PROFILE",
        ),
        ("[default]\ncredential_process = /nowhere/ask\n", "", "FileNotFoundError.*credential_process"),
        ("[default]\ncredential_process = echo hello\n", "", "prints no JSON; run it"),
    ],
)
def test_credentials_that_cannot_be_had(bare, monkeypatch, tmp_path, text, profile, expected):
    (tmp_path / "config").write_text(text)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(S3Failure, match=expected):
        connect(bare.url).ask("list_objects_v2", Prefix="one")
    assert not bare.requests


def test_nobody_is_asked_for_the_code_of_a_second_factor(bare, monkeypatch, tmp_path):
    """A question at the terminal would block a daemon for ever."""
    monkeypatch.setattr("getpass.getpass", lambda *_: pytest.fail("it asks a person"))
    role = "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = lab\nmfa_serial = arn:aws:iam::1:mfa/ada\n"
    keys = "[profile lab]\naws_access_key_id = A\naws_secret_access_key = B\n"
    (tmp_path / "config").write_text(role + keys)
    with pytest.raises(S3Failure, match="use a profile without mfa_serial"):
        connect(bare.url).ask("list_objects_v2", Prefix="one")
    assert not bare.requests


@pytest.mark.parametrize("code", ["403 ExpiredToken", "400 ExpiredToken", "403 InvalidAccessKeyId"])
def test_credentials_that_another_program_renews_are_read_again(bare, tmp_path, code):
    """boto/botocore#704: keys that last an hour, and a cron job that writes new ones into the file."""
    bare.fault = lambda request: code
    server = None
    for key in ("OLDKEY", "NEWKEY"):
        text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n"
        (tmp_path / "credentials").write_text(text)
        server = server or connect(bare.url)
        with pytest.raises(S3Failure, match=code[4:]):
            server.ask("put_object", Key="a", Body=b"1")
        assert f"Credential={key}/".encode() in bare.requests[-1].head
    server.close()


def test_credentials_are_not_read_again_for_other_failures(bare, keys, monkeypatch):
    server = connect(bare.url)
    for _ in range(2):
        with pytest.raises(S3Failure, match="Teapot"):
            server.ask("put_object", Key="a", Body=b"1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHERKEY")
    assert b"Credential=ENVKEY/" in bare.requests[-1].head
