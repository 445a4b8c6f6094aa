"""`alfwatchd config`: values and their sources."""

from __future__ import annotations

import json

from alfwatchd.settings import EXPLANATIONS


def test_every_setting_is_shown_with_its_source(run, tmp_path):
    """A user who wonders why a setting has no effect sees what overrides it."""
    config = tmp_path / "c.toml"
    config.write_text("lab = 'file'\nhash_threads = 3\n")
    words = ["config", f"--root={tmp_path}", f"--config={config}", "--lab=flag"]
    found = json.loads(run(*words, "--json").out)
    assert found.keys() == EXPLANATIONS.keys()
    assert found["lab"] == {"value": "flag", "source": "flag --lab"}
    assert found["hash_threads"] == {"value": 3, "source": str(config)}
    assert found["watch"] == {"value": "auto", "source": "default"}
    lines = run(*words).out.splitlines()
    assert len(lines) == len(found)
    assert lines[0].split() == ["root", str(tmp_path), "flag", "--root"]


def test_no_secret_of_an_address_is_shown(run, tmp_path):
    """People paste this output into questions on the web."""
    config = tmp_path / "c.toml"
    config.write_text("[adopt]\nsource = 'https://host/cache.zip?X-Amz-Signature=SECRET'\n")
    for more in ([], ["--json"]):
        ended = run("config", f"--root={tmp_path}", f"--config={config}", *more)
        assert ended.code == 0
        assert "https://host/cache.zip" in ended.out
        assert "SECRET" not in ended.out
