"""No password in an address gets into a message or a log."""

import pytest

from alfwatchd.addresses import redact, shown

ADDRESSES = [
    ("https://example.org/cache.zip", "https://example.org/cache.zip"),
    ("https://example.org/cache.zip?X-Amz-Signature=SECRET", "https://example.org/cache.zip"),
    ("https://example.org/cache.zip#SECRET", "https://example.org/cache.zip"),
    ("https://example.org?SECRET", "https://example.org"),
    ("https://user:SECRET@example.org/x", "https://example.org/x"),
    ("https://SECRET@example.org/x", "https://example.org/x"),
    ("https://user:SEC/RET@example.org/x", "https://example.org/x"),
    ("https://user:SEC@RET@example.org/x", "https://example.org/x"),
    ("https://example.org:8080/data@v1/x", "https://example.org:8080/data@v1/x"),
    ("https://[::1]:8080/x?SECRET", "https://[::1]:8080/x"),
    ("http://[not?SECRET", "http://[not"),
    ("alyx+https://alyx.example.org?SECRET", "alyx+https://alyx.example.org"),
    ("s3://bucket/prefix", "s3://bucket/prefix"),
    ("/data/what?/folder@home", "/data/what?/folder@home"),
    ("", ""),
]


@pytest.mark.parametrize(("address", "told"), ADDRESSES)
def test_no_secret_of_an_address_is_told(address, told):
    assert shown(address) == told
    assert redact(f"source={address} said='{address}'") == f"source={told} said='{told}'"
