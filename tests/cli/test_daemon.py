"""`alfwatchd` without a command: what it hands to the daemon."""

from __future__ import annotations

import json

from alfwatchd.service import daemon


def test_the_daemon_gets_the_settings_and_can_read_them_again(run, tmp_path, monkeypatch):
    """On SIGHUP the daemon reads the settings again: with the same flags, and the file as it is then."""
    config = tmp_path / "c.toml"
    config.write_text("hash_threads = 2\nlab = 'file'\n")
    read = []

    def run_daemon(settings, read_again):
        read.append(settings)
        config.write_text("hash_threads = 3\nlab = 'file'\n")
        read.append(read_again())

    monkeypatch.setattr(daemon, "run", run_daemon)
    assert run(f"--root={tmp_path}", f"--config={config}", "--lab=flag").code == 0
    assert [(each.hash_threads, each.lab) for each in read] == [(2, "flag"), (3, "flag")]


def test_accept_root_is_for_one_update(run, tmp_path, monkeypatch):
    """A daemon that accepted any disk at each start would drop all rows when a disk is not mounted."""
    monkeypatch.setattr(daemon, "run", lambda *_: None)
    ended = run(f"--root={tmp_path}", "--accept-root")
    assert ended.code == 2
    assert "alfwatchd rescan --accept-root" in ended.err


def test_json_is_for_one_update(run, tmp_path, monkeypatch):
    """A daemon prints no answer: a program that waits for one would wait for ever."""
    monkeypatch.setattr(daemon, "run", lambda *_: None)
    ended = run(f"--root={tmp_path}", "--json")
    assert ended.code == 2
    assert "alfwatchd status --json" in json.loads(ended.err)["message"]


def test_settings_that_are_wrong_end_with_78(run, tmp_path):
    """systemd does not start a unit again and again that ends with 78."""
    assert run().code == 78
    assert run(f"--root={tmp_path}", "--scan-workers=99").code == 78
