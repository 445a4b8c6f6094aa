"""What a person is told of an answer that an S3 server gave; parts of the request in it are never told."""

import pytest

from alfwatchd.publish.s3_reasons import Reason, read_answer
from kit.s3 import KEY, SECRET, TOKEN


def answer(code, status, location="", region="", headers=None):
    error = {"Code": code, "Message": SECRET} | ({"Region": region} if region else {})
    headers = (headers or {}) | ({"location": location} if location else {})
    return {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (answer("InvalidAccessKeyId", 403), "(InvalidAccessKeyId): it does not know this access key"),
        (answer("SignatureDoesNotMatch", 403), "(SignatureDoesNotMatch): the secret does not belong to the access key"),
        (answer("403", 403), "(403): the credentials may not do this"),
        (answer("NoSuchBucket", 404), "(NoSuchBucket): there is no such bucket"),
        (answer("SlowDown", 503), "(SlowDown): it is busy"),
        (answer("XMinioStorageFull", 507), "(XMinioStorageFull): it has no room left"),
        (answer("507", 507), "(507): it has no room left"),
        (answer("407", 407), "(407): the proxy wants a name and a password"),
        (answer("XAmzContentSHA256Mismatch", 400), "(XAmzContentSHA256Mismatch): what arrived was damaged"),
        (answer("AuthorizationHeaderMalformed", 400), "serves another region; check region"),
        (answer("AuthorizationHeaderMalformed", 400, region="garage"), "the region garage; set region to it"),
        (answer("301", 301, headers={"x-amz-bucket-region": "eu-west-2"}), "the region eu-west-2; set region to it"),
        (answer("307", 307, "https://s3.lab.org:9000/b/one?x"), "redirects to https://s3.lab.org:9000; set endpoint"),
        (answer("PermanentRedirect", 301), "the bucket is at another address; check region and endpoint"),
        (answer("Odd", 418), "(Odd): check endpoint, region, bucket and credentials"),
        ({}, "(0): check endpoint"),
    ],
)
def test_what_is_told(told, expected):
    assert expected in str(read_answer(told))


@pytest.mark.parametrize(
    "told",
    [
        answer(SECRET, 403),
        answer(KEY, 403),
        answer("AKIAIOSFODNNEXAMPLE", 403),  # an access key without digits looks like a code
        answer(TOKEN, 403),
        answer("403", 301, f"https://lab.org@{TOKEN}/{SECRET}", TOKEN),
        answer("403", 301, f"https://{TOKEN}.lab.org/", SECRET),
        answer("307", 307, f"https://lab.org/{SECRET}?X-Amz-Security-Token={TOKEN}"),
    ],
)
def test_what_is_never_told(told):
    reason = read_answer(told)
    for secret in (SECRET, KEY, TOKEN, "AKIAIOSFODNNEXAMPLE"):
        assert secret not in str(reason)
        assert secret not in repr(reason)


def test_an_error_without_an_answer():
    assert str(Reason("NoCredentialsError")).startswith("the S3 server cannot be used (NoCredentialsError): there are")
