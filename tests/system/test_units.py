"""What systemd itself says about the unit files, without starting them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from alfwatchd.database import sources, web_source
from alfwatchd.publish import s3_server

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = ["alfwatchd.service", "alfwatchd@.service", "alfwatchd-serve.service", "alfwatchd-follow@.service"]
THRESHOLDS = dict.fromkeys(SERVICES, 20) | {"alfwatchd-follow@.service": 22}
"""Ten times the rating. The command of a follower may need a GPU, the network, and code that it makes itself."""

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def _analyze(*arguments):
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=300)


@pytest.fixture
def installed(tmp_path):
    """A root folder with the units and empty stand-ins for the programs that they name."""
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    for service in SERVICES:
        text = (UNITS / service).read_text()
        (folder / service).write_text(text)
        for program in re.findall(r"^Exec\w+=(/\S+)", text, re.MULTILINE):
            stand_in = tmp_path / program.lstrip("/")
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_text("#!/bin/sh\n")
            stand_in.chmod(0o755)
    return tmp_path


@needs_analyze
@pytest.mark.parametrize("unit", ["alfwatchd.service", "alfwatchd@cortex.service", "alfwatchd-serve.service",
                                  "alfwatchd-follow@sorting.service"])  # fmt: skip
def test_verify(installed, unit):
    done = _analyze("verify", f"--root={installed}", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
def test_verify_would_find_a_mistake(installed):
    unit = installed / "etc/systemd/system/alfwatchd.service"
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHomes="))
    done = _analyze("verify", f"--root={installed}", "--man=no", "--recursive-errors=no", unit.name)
    assert "'ProtectHomes'" in done.stderr


DROP_IN = UNITS / "network.conf"


@needs_analyze
@pytest.mark.parametrize("with_secrets", [False, True])
@pytest.mark.parametrize("unit", ["alfwatchd.service", "alfwatchd@cortex.service"])
def test_verify_with_the_network(installed, unit, with_secrets):
    text = DROP_IN.read_text()
    assert text.count("#LoadCredential=") == 7
    folder = installed / f"etc/systemd/system/{unit}.d"
    folder.mkdir()
    (folder / DROP_IN.name).write_text(text.replace("#LoadCredential=", "LoadCredential=") if with_secrets else text)
    done = _analyze("verify", f"--root={installed}", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_network_drop_in_takes_back_all_that_keeps_the_network_away():
    """Each setting of the unit that does has its counterpart; and secrets have the names that are looked for."""
    away = [line.partition("=")[0] for line in _settings("alfwatchd.service") if re.search("Network=|Address", line)]
    given = dict(line.split("=", 1) for line in _settings(DROP_IN.name) if "=" in line)
    assert {name: given[name] for name in away} == {
        "PrivateNetwork": "no", "RestrictAddressFamilies": "AF_INET AF_INET6", "IPAddressDeny": "",
    }  # fmt: skip
    names = re.findall(r"LoadCredential=(\w+):\S+/\1$", DROP_IN.read_text(), re.MULTILINE)
    wanted = list(s3_server.CREDENTIALS)
    assert names == [*wanted, web_source.TOKEN, *sources.ALYX_CREDENTIALS]


@needs_analyze
@pytest.mark.parametrize("service", SERVICES)
def test_security(service):
    done = _analyze(
        "security", "--offline=yes", f"--threshold={THRESHOLDS[service]}", "--no-pager", str(UNITS / service)
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _settings(service):
    lines = (UNITS / service).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_template_differs_from_the_plain_unit_in_names_only():
    plain, template = _settings("alfwatchd.service"), _settings("alfwatchd@.service")
    assert sorted(set(template) - set(plain)) == [
        "After=alfwatchd.service",
        "Conflicts=alfwatchd.service",
        "Description=ONE cache tables of a folder of ALF datasets (%i)",
        "ExecStart=/opt/alfwatchd/bin/alfwatchd --config /etc/alfwatchd/%i.toml",
        "RuntimeDirectory=alfwatchd/%i",
        "StateDirectory=alfwatchd/%i",
    ]
    assert len(set(plain) - set(template)) == 4


def test_what_serves_differs_from_the_daemon_where_the_network_asks_for_it_or_it_can_do_less():
    daemon, serve = _settings("alfwatchd.service"), _settings("alfwatchd-serve.service")
    assert sorted(set(serve) - set(daemon)) == [
        "After=local-fs.target remote-fs.target nss-user-lookup.target network.target alfwatchd.service",
        "Description=ONE cache tables for clients on other machines",
        "Environment=ALFWATCHD_STATE_DIR=%S/alfwatchd-serve",
        "ExecStart=/opt/alfwatchd/bin/alfwatchd serve --config /etc/alfwatchd/config.toml",
        "ProtectSystem=strict",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "StateDirectory=alfwatchd-serve",
        "TimeoutStartSec=2min",
        "TimeoutStopSec=30s",
        "UMask=0077",
    ]
    # It has no control socket, and must be reached.
    lacks = {"RuntimeDirectory", "RuntimeDirectoryMode", "ExecReload", "PrivateNetwork", "IPAddressDeny"}
    names = {line.partition("=")[0] for line in daemon} - {line.partition("=")[0] for line in serve}
    assert names == lacks
    assert "SystemCallFilter=@chown" not in serve


def test_what_follows_may_do_no_more_than_the_daemon_apart_from_what_its_command_needs():
    daemon, follow = _settings("alfwatchd.service"), _settings("alfwatchd-follow@.service")
    names = {line.partition("=")[0] for line in daemon} - {line.partition("=")[0] for line in follow}
    assert names == {
        "IPAddressDeny", "PrivateNetwork", "PrivateIPC", "PrivateDevices", "DevicePolicy", "MemoryDenyWriteExecute",
        "Environment", "ExecReload", "NotifyAccess", "WatchdogSec", "RuntimeDirectory", "RuntimeDirectoryMode",
        "Nice", "IOSchedulingPriority", "LimitNOFILE", "TimeoutStartSec", "User", "Group",
    }  # fmt: skip
    own = {line for line in follow if line not in daemon and not line.startswith(("Exec", "Description"))}
    assert own == {
        "After=local-fs.target remote-fs.target nss-user-lookup.target network.target alfwatchd.service",
        "AssertPathExists=/etc/alfwatchd/follow-%i.conf", "EnvironmentFile=/etc/alfwatchd/follow-%i.conf",
        "KillMode=mixed", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "StateDirectory=alfwatchd-follow/%i",
        "TimeoutStopSec=40s", "Type=exec", "UMask=0027",
    }  # fmt: skip


@pytest.mark.parametrize(
    "setting",
    [
        "Type=notify",  # notify-reload would be ignored before systemd 253
        "RestartPreventExitStatus=78 2",
        "Restart=on-failure",
        "TimeoutStartSec=infinity",
        "TimeoutStopSec=2min",
        "SystemCallErrorNumber=EPERM",
    ],
)
def test_settings_that_no_analysis_asks_for(setting):
    assert setting in _settings("alfwatchd.service")


@pytest.mark.parametrize("setting", ["DynamicUser", "PrivateUsers", "ProcSubset"])
def test_settings_that_would_break_it(setting):
    assert not [line for line in _settings("alfwatchd.service") if line.startswith(setting)]


def test_the_sysctl_drop_in_raises_the_limits():
    lines = (UNITS / "60-alfwatchd.conf").read_text().splitlines()
    settings = dict(line.split(" = ") for line in lines if line and not line.startswith("#"))
    assert settings == {"fs.inotify.max_user_watches": "1048576", "fs.inotify.max_queued_events": "262144"}
    proc = Path("/proc/sys")
    assert not proc.exists() or all((proc / name.replace(".", "/")).exists() for name in settings)
