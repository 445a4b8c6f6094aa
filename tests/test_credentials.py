"""Where secrets come from."""

from __future__ import annotations

import pytest

from alfwatchd import credentials
from alfwatchd.errors import ConfigError


def test_the_environment_wins_over_the_file_and_an_empty_file_counts_as_missing(tmp_path):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert credentials.find("serve_token", environ) is None
    (tmp_path / "serve_token").write_text("from a file\n")
    assert credentials.find("serve_token", environ) == "from a file"
    assert credentials.find("serve_token", environ | {"ALFWATCHD_CREDENTIAL_SERVE_TOKEN": ""}) == "from a file"
    assert credentials.find("serve_token", environ | {"ALFWATCHD_CREDENTIAL_SERVE_TOKEN": " x "}) == "x"
    assert credentials.find("serve_token", {}) is None


def test_what_cannot_be_read_is_an_error_without_what_it_holds(tmp_path):
    (tmp_path / "serve_token").write_bytes(b"secret\xff")
    with pytest.raises(ConfigError, match="serve_token: the credential cannot be read: not UTF-8") as caught:
        credentials.find("serve_token", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "secret" not in str(caught.value)
